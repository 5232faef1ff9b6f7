import pytest

from tests.harness.postgres import PostgresCluster, run_sql
from tests.harness.process import ProcessError


def test_databases_of_a_cluster_are_copied_and_apart(postgres: PostgresCluster) -> None:
    url = postgres.create_database("first")
    run_sql(url, "CREATE TABLE one (number int); INSERT INTO one VALUES (1);")
    copy = postgres.create_database("second", template="first")
    run_sql(copy, "INSERT INTO one VALUES (2);")
    assert run_sql(url, "SELECT * FROM one;") == "1"
    assert run_sql(copy, "SELECT * FROM one ORDER BY 1;") == "1\n2"


def test_a_script_that_fails_changes_nothing(postgres: PostgresCluster) -> None:
    url = postgres.create_database("third")
    with pytest.raises(ProcessError, match="no_such_table"):
        run_sql(url, "CREATE TABLE one (number int); SELECT * FROM no_such_table;")
    assert run_sql(url, "SELECT count(*) FROM pg_tables WHERE tablename = 'one';") == "0"
