"""Import tests of real DAG files: what they find, and what bounds them."""

import tempfile
import unittest
from pathlib import Path

from runtime.import_test import ImportTester, Limits, Report

HEAD = "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator as Task\n"
GOOD = HEAD + "with DAG({name!r}):\n    Task(task_id='a')\n"


class ImportTest(unittest.TestCase):
    tester: ImportTester

    @classmethod
    def setUpClass(cls) -> None:
        cls.tester = ImportTester(Limits(wall_seconds=15, file_seconds=3, memory_mib=256))

    @classmethod
    def tearDownClass(cls) -> None:
        cls.tester.close()

    def tested(self, **files: str) -> Report:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                (Path(folder) / f"{name}.py").write_text(text)
            return self.tester.test(Path(folder))

    def refused(self, file: str, wanted: str, **files: str) -> None:
        report = self.tested(**files)
        assert any(error.startswith(f"{file}.py: ") and wanted in error for error in report.errors), report

    def test_every_dag_is_found(self) -> None:
        report = self.tested(one=GOOD.format(name="b"), two=GOOD.format(name="a"), helper="x = 1\n")
        assert report == Report(dag_ids=["a", "b"])

    def test_one_test_leaves_nothing_for_the_next(self) -> None:
        first = self.tested(dag=HEAD + "import helper\nd = DAG(helper.NAME)\n", helper="NAME = 'one'\n")
        second = self.tested(dag=HEAD + "import helper\nd = DAG(helper.NAME)\n", helper="NAME = 'two'\n")
        assert (first.dag_ids, second.dag_ids) == (["one"], ["two"])

    def test_every_mistake_is_named_at_once(self) -> None:
        report = self.tested(
            a=HEAD + "def (\n", b=HEAD + "import nothing_of_this_name\n", c=GOOD.format(name="c")
        )
        assert report.dag_ids == ["c"]
        assert [error[:5] for error in report.errors] == ["a.py:", "b.py:"]
        assert "nothing_of_this_name" in report.errors[1]

    def test_same_dag_id_in_two_files(self) -> None:
        self.refused("b", "same", a=GOOD.format(name="same"), b=GOOD.format(name="same"))

    def test_cycle(self) -> None:
        text = HEAD + "with DAG('c'):\n    a, b = Task(task_id='a'), Task(task_id='b')\n    a >> b >> a\n"
        self.refused("c", "Cycle", c=text)

    def test_no_dag(self) -> None:
        assert self.tested(x="x = 1\n").errors == ["no file of the release defines a DAG"]

    def test_run_that_would_mix_versions(self) -> None:
        self.refused(
            "a", "disable_bundle_versioning", a=HEAD + "d = DAG('a', disable_bundle_versioning=True)\n"
        )

    def test_memory_eater(self) -> None:
        self.refused("a", "MemoryError", a=HEAD + "x = bytearray(2**30)\n")

    def test_python_that_hangs(self) -> None:
        self.refused("a", "timeout", a=HEAD + "while True: pass\n")

    def test_process_that_ends(self) -> None:
        self.refused("a", "exit code 3", a=HEAD + "import os\nos._exit(3)\n")

    def test_network_is_refused_where_it_is_reached_for(self) -> None:
        self.refused(
            "a",
            "reached for the network",
            a=HEAD + "import socket\nsocket.create_connection(('127.0.0.1', 9))\n",
        )

    def test_no_login_is_in_sight(self) -> None:
        text = (
            HEAD
            + "import os\nd = DAG('_'.join(n for n in os.environ if 'PASSWORD' in n or 'SECRET' in n) or 'none')\n"
        )
        assert self.tested(a=text).dag_ids == ["none"]

    def test_hang_beyond_python_ends_too_and_the_next_test_works(self) -> None:
        with (
            ImportTester(Limits(wall_seconds=2, file_seconds=60)) as tester,
            tempfile.TemporaryDirectory() as folder,
        ):
            file = Path(folder) / "a.py"
            file.write_text(HEAD + "while True: pass\n")
            assert tester.test(Path(folder)).errors == ["a.py: the import did not end in 2 s"]
            file.write_text(GOOD.format(name="a"))
            assert tester.test(Path(folder)).dag_ids == ["a"]


if __name__ == "__main__":
    unittest.main()
