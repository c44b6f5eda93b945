"""Makes pairs from answers that a model generates. Only the back ends and the reward model import torch."""
