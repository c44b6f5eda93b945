"""Tests of dpo.data.reading: raw rows from files, folders and the Hub."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo.adapters import find_adapters
from dpo.data.reading.opening import open_source
from dpo.data.reading.source import parse_source
from dpo.errors import AdapterError, SourceError
from tests.conftest import WriteRows

ROWS = [
    {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."},
    {"prompt": "Größe? ½ 🙂\u2028x", "chosen": "a\nb", "rejected": ""},
    {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
]


def read(spec: object, adapter: str = "triplets") -> list[tuple[int, Any]]:
    return list(open_source(parse_source(f"{adapter}={spec}")))


def write(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


class TestFiles:
    def test_a_json_array_is_read_in_any_layout(self, tmp_path: Path) -> None:
        numbered = list(enumerate(ROWS))
        assert read(write(tmp_path, "a.json", json.dumps(ROWS))) == numbered
        assert read(write(tmp_path, "b.json", "\n  " + json.dumps(ROWS, indent=2, ensure_ascii=False))) == numbered

    def test_lines_of_json_are_read_and_blank_ones_skipped(self, tmp_path: Path) -> None:
        lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
        numbered = list(enumerate(ROWS))
        assert read(write(tmp_path, "a.jsonl", "\n".join(lines))) == numbered
        assert read(write(tmp_path, "b.jsonl", "\n\n" + "\n \n".join(lines) + "\n\n")) == numbered
        assert read(write(tmp_path, "c.json", "\n".join(lines))) == numbered

    def test_a_byte_order_mark_is_skipped(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.jsonl", "\ufeff" + json.dumps(ROWS[0]))) == [(0, ROWS[0])]
        assert read(write(tmp_path, "a.json", "\ufeff" + json.dumps(ROWS))) == list(enumerate(ROWS))
        assert read(write(tmp_path, "a.csv", "\ufeffprompt,chosen,rejected\nx,a,b\n")) == [
            (0, {"prompt": "x", "chosen": "a", "rejected": "b"})
        ]

    def test_csv_is_read_with_its_quotes_and_line_breaks(self, tmp_path: Path) -> None:
        text = 'prompt,chosen,rejected\n"one, ""two""\nthree",a,b\nx,,\n'
        assert read(write(tmp_path, "a.csv", text)) == [
            (0, {"prompt": 'one, "two"\nthree', "chosen": "a", "rejected": "b"}),
            (1, {"prompt": "x", "chosen": "", "rejected": ""}),
        ]

    def test_a_csv_cell_may_be_longer_than_the_library_s_default_of_128_kib(self, tmp_path: Path) -> None:
        text = f"prompt,chosen,rejected\n{'x' * 200_000},a,b\n"
        assert len(read(write(tmp_path, "a.csv", text))[0][1]["prompt"]) == 200_000

    def test_parquet_is_read_with_nested_columns(self, tmp_path: Path) -> None:
        rows = [
            {
                "chosen": [{"role": "user", "content": "x"}],
                "rejected": [{"role": "user", "content": "y"}],
                "score": 1.5,
            },
            {"chosen": [], "rejected": None, "score": None},
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        assert read(tmp_path / "a.parquet") == list(enumerate(rows))

    def test_a_folder_is_read_file_by_file_in_the_order_of_names(self, tmp_path: Path, write_rows: WriteRows) -> None:
        (tmp_path / "set" / "deep").mkdir(parents=True)
        write_rows([ROWS[2]], "set/deep/c.jsonl")
        write(tmp_path, "set/b.json", json.dumps([ROWS[1]]))
        write(tmp_path, "set/a.csv", "prompt,chosen,rejected\nx,a,b\n")
        write(tmp_path, "set/README.md", "no rows")
        assert read(tmp_path / "set") == [
            (0, {"prompt": "x", "chosen": "a", "rejected": "b"}),
            (1, ROWS[1]),
            (2, ROWS[2]),
        ]

    def test_the_split_of_a_folder_selects_files_by_name(self, tmp_path: Path, write_rows: WriteRows) -> None:
        (tmp_path / "set" / "test").mkdir(parents=True)
        write_rows(ROWS[:1], "set/train-0.jsonl")
        write_rows(ROWS[1:], "set/test/0.jsonl")
        assert read(f"{tmp_path}/set:train") == [(0, ROWS[0])]
        assert read(f"{tmp_path}/set:test") == [(0, ROWS[1]), (1, ROWS[2])]
        assert len(read(tmp_path / "set")) == 3
        with pytest.raises(SourceError, match=r"set: the folder contains no file with 'dev' in its name"):
            parse_source(f"triplets={tmp_path}/set:dev")

    def test_a_missing_file_is_an_error_that_lists_what_is_expected(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as caught:
            parse_source(f"triplets={tmp_path}/none.jsonl")
        assert f"there is no file or folder '{tmp_path}/none.jsonl'" in str(caught.value)
        assert ".json, .jsonl, .csv, .parquet, or a Hub id such as trl-lib/ultrafeedback_binarized" in str(caught.value)

    def test_a_file_in_an_unknown_format_is_an_error(self, tmp_path: Path) -> None:
        expected = r"unknown format '\.txt', expected one of \.json, \.jsonl, \.csv, \.parquet"
        with pytest.raises(SourceError, match=expected):
            parse_source(f"triplets={write(tmp_path, 'rows.txt', '{}')}")

    def test_a_folder_without_a_known_file_is_an_error(self, tmp_path: Path) -> None:
        write(tmp_path, "README.md", "no rows")
        with pytest.raises(SourceError, match=r"the folder contains no file in one of the formats \.json"):
            parse_source(f"triplets={tmp_path}")

    @pytest.mark.parametrize(("name", "text"), [("a.json", "[]"), ("a.json", ""), ("a.jsonl", "\n\n"), ("a.csv", "")])
    def test_a_file_without_rows_is_an_error(self, tmp_path: Path, name: str, text: str) -> None:
        with pytest.raises(SourceError, match="the source contains no rows"):
            read(write(tmp_path, name, text))

    def test_a_csv_with_only_a_header_and_an_empty_parquet_are_errors(self, tmp_path: Path) -> None:
        pq.write_table(pa.Table.from_pylist([], pa.schema({"prompt": pa.string()})), tmp_path / "a.parquet")
        with pytest.raises(SourceError, match="the source contains no rows"):
            read(tmp_path / "a.parquet")
        with pytest.raises(SourceError, match="the source contains no rows"):
            read(write(tmp_path, "a.csv", "prompt,chosen,rejected\n"))

    def test_invalid_json_is_reported_with_file_line_and_column(self, tmp_path: Path) -> None:
        good = json.dumps(ROWS[0])
        file = write(tmp_path, "a.jsonl", f"{good}\n\n{good[:-1]} oops\n{good}\n")
        with pytest.raises(SourceError) as caught:
            read(file)
        assert str(caught.value).startswith(f"{file}, line 3, column {len(good) + 1}: not valid JSON: ")
        assert "found 'oops" in str(caught.value)

    def test_an_invalid_json_array_is_reported_with_its_line(self, tmp_path: Path) -> None:
        file = write(tmp_path, "a.json", '[\n  {"prompt": "x"},\n  {"prompt": }\n]\n')
        with pytest.raises(SourceError, match=r"a\.json, line 3, column 14: not valid JSON"):
            read(file)

    def test_an_object_over_several_lines_is_an_error(self, tmp_path: Path) -> None:
        expected = r"line 1.*not valid JSON[\s\S]*one JSON object on each line, or one array"
        with pytest.raises(SourceError, match=expected):
            read(write(tmp_path, "a.json", json.dumps({"data": ROWS}, indent=1)))

    def test_json_nested_too_deeply_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"line 1: the JSON cannot be read as a row"):
            read(write(tmp_path, "a.jsonl", "{" + '"a":' + "[" * 100_000))

    def test_a_number_too_long_for_python_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"a\.jsonl, line 1"):
            read(write(tmp_path, "a.jsonl", '{"prompt": ' + "9" * 5000 + "}"))

    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
    def test_a_file_that_is_not_utf_8_is_an_error(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b'{"prompt": "\xff"}')
        with pytest.raises(SourceError, match=f"{name}: cannot be read: 'utf-8' codec"):
            read(tmp_path / name)

    def test_a_file_that_is_not_parquet_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"a\.parquet: not a readable Parquet file"):
            read(write(tmp_path, "a.parquet", "no parquet at all"))

    def test_a_folder_whose_name_ends_like_a_file_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "set" / "rows.jsonl").mkdir(parents=True)
        with pytest.raises(SourceError, match="cannot be read"):
            read(tmp_path / "set")


class TestColumns:
    def test_missing_columns_are_an_error_that_lists_expected_and_found_ones(self, write_rows: WriteRows) -> None:
        file = write_rows([{"question": "x", "answer": "a", "chosen": "b"}])
        with pytest.raises(SourceError) as caught:
            read(file, "orca_dpo_pairs")
        assert str(caught.value) == (
            f"orca_dpo_pairs={file}: missing columns: system, rejected.\n"
            "  Expected by the adapter 'orca_dpo_pairs': system, question, chosen, rejected\n"
            "  Found: answer, chosen, question"
        )

    def test_rows_that_are_not_objects_are_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="Found: rows that are not objects"):
            read(write(tmp_path, "a.json", '["a", 1, null]'))

    def test_a_column_is_found_if_one_of_the_first_rows_has_it(self, write_rows: WriteRows) -> None:
        rows = [{"chosen": "a"}, 3, {"rejected": "b"}]
        assert read(write_rows(rows)) == [(0, {"chosen": "a"}), (1, 3), (2, {"rejected": "b"})]

    def test_csv_lines_with_too_few_or_too_many_cells_are_rows(self, tmp_path: Path) -> None:
        rows = read(write(tmp_path, "a.csv", "prompt,chosen,rejected\nx,a\ny,a,b,c,d\n"))
        assert [row["prompt"] for _, row in rows] == ["x", "y"]
        assert rows[0][1]["rejected"] is None


class TestSpec:
    def test_an_adapter_s_name_alone_means_its_own_hub_id_and_split(self) -> None:
        source = parse_source("ultrafeedback")
        assert (source.hub_id, source.split) == ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs")
        assert (source.spec, source.adapter.name, source.fraction, source.files) == (
            "ultrafeedback",
            "ultrafeedback",
            1.0,
            (),
        )

    @pytest.mark.parametrize(
        ("spec", "hub_id", "split", "fraction"),
        [
            ("nectar@0.5", "berkeley-nest/Nectar", "train", 0.5),
            ("nectar@1", "berkeley-nest/Nectar", "train", 1.0),
            ("nectar@1e-2", "berkeley-nest/Nectar", "train", 0.01),
            ("nectar:test", "berkeley-nest/Nectar", "test", 1.0),
            ("nectar:test@.25", "berkeley-nest/Nectar", "test", 0.25),
            ("nectar:", "berkeley-nest/Nectar", "train", 1.0),
            ("nectar=org/my-set_1.0", "org/my-set_1.0", "train", 1.0),
            ("ultrafeedback=org/set", "org/set", "train_prefs", 1.0),
            ("nectar=org/set:dev@0.1", "org/set", "dev", 0.1),
            ("nectar=org/set:train[:10%]", "org/set", "train[:10%]", 1.0),
        ],
    )
    def test_hub_id_split_and_fraction_are_read(self, spec: str, hub_id: str, split: str, fraction: float) -> None:
        source = parse_source(spec)
        assert (source.hub_id, source.split, source.fraction, source.spec) == (hub_id, split, fraction, spec)

    def test_a_file_s_fraction_is_read(self, write_rows: WriteRows) -> None:
        file = write_rows(ROWS)
        source = parse_source(f"triplets={file}@0.5")
        assert (source.files, source.hub_id, source.fraction) == ((file,), None, 0.5)

    def test_a_path_may_contain_equals_colon_and_at(self, tmp_path: Path, write_rows: WriteRows) -> None:
        (tmp_path / "a=b:c@d").mkdir()
        file = write_rows(ROWS, "a=b:c@d/rows@1.jsonl")
        assert parse_source(f"triplets={file}").files == (file,)
        assert parse_source(f"triplets={file}@0.5").fraction == 0.5

    @pytest.mark.parametrize("fraction", ["0", "0.0", "-0.5", "1.5", "2", "1e3", "0.5.5", "e", "+", "1e999"])
    def test_a_fraction_outside_zero_to_one_is_an_error(self, fraction: str) -> None:
        with pytest.raises(SourceError) as caught:
            parse_source(f"nectar@{fraction}")
        assert str(caught.value) == (
            f"nectar@{fraction}: the fraction after '@' is '{fraction}', expected a number in (0, 1]"
        )

    @pytest.mark.parametrize(
        "spec", ["nectr", "", "@0.5", "=rows.jsonl", "nectar@half", "nectar@50%", "nectar@", "NECTAR"]
    )
    def test_an_unknown_adapter_is_an_error_that_lists_the_adapters(self, spec: str) -> None:
        with pytest.raises(AdapterError, match=f"Available: {', '.join(find_adapters())}"):
            parse_source(spec)

    @pytest.mark.parametrize("spec", ["rows.jsonl", "data/rows", "org/name@0.5"])
    def test_a_path_without_an_adapter_is_an_error_that_shows_the_syntax(self, spec: str) -> None:
        with pytest.raises(SourceError, match=f"Write ADAPTER={spec}"):
            parse_source(spec)

    @pytest.mark.parametrize(
        "location", ["", ":train", "imdb", "data/rows.jsonl:train", "a/b/c", "https://x.org/a.json"]
    )
    def test_a_location_that_is_neither_a_file_nor_a_hub_id_is_an_error(
        self, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_rows: WriteRows
    ) -> None:
        write_rows(ROWS)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SourceError, match="there is no file or folder"):
            parse_source(f"triplets={location}")


class TestFraction:
    @staticmethod
    def taken(spec: str, num_rows: int, seed: int = 42) -> list[int]:
        source = parse_source(spec)
        return [number for number in range(num_rows) if source.is_sampled(number, seed)]

    @pytest.mark.parametrize(
        ("fraction", "num_rows", "num_taken"),
        [
            *(("0.5", 100, 50), ("0.5", 300, 150), ("0.13", 100, 13), ("0.125", 800, 100), ("0.015", 200, 3)),
            *(("0.001", 1000, 1), ("0.001", 900, 0), ("0.999", 1000, 999), ("1", 250, 250), ("1.0", 7, 7)),
            *(("0.29", 100, 29), ("0.57", 100, 57), ("0.07", 300, 21)),
        ],
    )
    def test_a_fraction_takes_the_floor_of_its_share_of_full_blocks(
        self, fraction: str, num_rows: int, num_taken: int
    ) -> None:
        assert len(self.taken(f"nectar@{fraction}", num_rows)) == num_taken

    def test_a_fraction_takes_its_share_of_each_block_of_100_rows(self) -> None:
        taken = self.taken("nectar@0.2", 1000)
        assert [sum(number // 100 == block for number in taken) for block in range(10)] == [20] * 10

    def test_the_seed_decides_which_rows_are_taken(self) -> None:
        assert self.taken("nectar@0.5", 500, seed=1) == self.taken("nectar@0.5", 500, seed=1)
        assert self.taken("nectar@0.5", 500, seed=1) != self.taken("nectar@0.5", 500, seed=2)

    def test_the_rows_taken_are_not_consecutive_and_differ_between_blocks(self) -> None:
        taken = self.taken("nectar@0.1", 200)
        first, second = [n for n in taken if n < 100], [n - 100 for n in taken if n >= 100]
        assert first != list(range(first[0], first[0] + 10))
        assert first != second

    def test_whether_a_row_is_taken_does_not_depend_on_the_number_of_rows(self) -> None:
        assert self.taken("nectar@0.3", 150) == [n for n in self.taken("nectar@0.3", 1000) if n < 150]


class TestFingerprint:
    def test_it_changes_with_the_content_time_or_name_of_a_file(self, write_rows: WriteRows, tmp_path: Path) -> None:
        file = write_rows(ROWS)
        spec = f"triplets={tmp_path}"
        first = parse_source(spec).fingerprint()
        assert parse_source(spec).fingerprint() == first
        write_rows([*ROWS, ROWS[0]])
        longer = parse_source(spec).fingerprint()
        os.utime(file, ns=(1, 1))
        touched = parse_source(spec).fingerprint()
        file.rename(tmp_path / "other.jsonl")
        renamed = parse_source(spec).fingerprint()
        assert len({first, longer, touched, renamed}) == 4

    def test_it_changes_if_a_file_is_added_to_the_folder(self, write_rows: WriteRows, tmp_path: Path) -> None:
        write_rows(ROWS)
        first = parse_source(f"triplets={tmp_path}").fingerprint()
        write_rows(ROWS, "second.jsonl")
        assert parse_source(f"triplets={tmp_path}").fingerprint() != first


def test_an_unreachable_hub_data_set_is_an_error_with_advice() -> None:
    source = parse_source("nectar=no-such-org/no-such-set:train")
    with pytest.raises(SourceError) as caught:
        list(open_source(source))
    message = str(caught.value)
    assert "the Hub data set 'no-such-org/no-such-set', split 'train', cannot be loaded" in message
    assert "pass a local copy: ADAPTER=path/to/rows.jsonl" in message
    with pytest.raises(SourceError, match="cannot be loaded"):
        source.fingerprint()
