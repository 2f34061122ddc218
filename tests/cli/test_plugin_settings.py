"""`batchdesk plugins set`: a plugin's own settings from the command line."""

from __future__ import annotations

from support.command_line import CommandLine


def test_settings_are_shown_changed_and_refused_in_words(line: CommandLine) -> None:
    shown = line("plugins", "set", "limits")
    assert shown.status == 0 and "most_records=\n" in shown.out

    changed = line("plugins", "set", "limits", "most_records=5")
    assert changed.status == 0 and "most_records=5\n" in changed.out and "Changed." in changed.err

    refused = line("plugins", "set", "limits", "most_records=none", "most_recrods=1")
    assert refused.status == 2
    assert "'most_records' is 'none'" in refused.err and "Did you mean 'most_records'?" in refused.err


def test_a_plugin_without_settings_says_so(line: CommandLine) -> None:
    assert "has no settings of its own" in line("plugins", "set", "classify").err


def test_bad_usage_is_told(line: CommandLine) -> None:
    assert "no plugin 'limit'" in line("plugins", "set", "limit", "a=b").err
    assert "'most' is not NAME=VALUE" in line("plugins", "set", "limits", "most").err
