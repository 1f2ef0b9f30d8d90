import pytest

from pipeline.domain.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://ada:pw@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("postgresql+psycopg2://ada:p@ss:w0rd@db/m", "postgresql+psycopg2://***@db/m"),
        ("http://token@mlflow.example", "http://***@mlflow.example"),
        ("at http://a:b@x and https://c:d@y/z.", "at http://***@x and https://***@y/z."),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("http://127.0.0.1:5000/api?user=a@b", "http://127.0.0.1:5000/api?user=a@b"),
        ("Dr Ada Roe <ada@example.org>", "Dr Ada Roe <ada@example.org>"),
        ("", ""),
    ],
)
def test_credentials_of_addresses_are_removed_and_nothing_else(text, expected):
    assert redact(text) == expected
