"""What the command line says shows no password, wherever it was put."""

from __future__ import annotations

from support.command_line import CommandLine


def test_doctor_shows_the_apis_address_without_its_credentials(bare: CommandLine) -> None:
    done = bare("doctor", ANTHROPIC_API_KEY="sk-hunter2", ANTHROPIC_BASE_URL="https://me:hunter2@proxy.example/api")
    assert "ANTHROPIC_BASE_URL is set: https://proxy.example/api" in done.out
    assert "hunter2" not in done.out + done.err


def test_a_url_that_will_not_do_is_told_without_it(bare: CommandLine) -> None:
    done = bare("status", DATABASE_URL="mysql://me:hunter2@host/db", BATCHDESK_SECRET_KEY="x" * 32)
    assert done.status == 2 and "DATABASE_URL: its value will not do" in done.err
    assert "hunter2" not in done.out + done.err
