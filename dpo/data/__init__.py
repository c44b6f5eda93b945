"""The data pipeline: from raw rows to token ids, with every row counted. It does not import torch and starts fast."""
