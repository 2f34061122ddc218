"""Pages over a run whose payloads were dropped say so, with the day, and offer nothing that needs them."""

from __future__ import annotations

from support.desk import DeskDriver, documents
from support.visitor import Visitor

from webapp import db
from webapp.runs import retention


def dropped(desk: DeskDriver) -> int:
    """A run that is over, whose payloads are gone."""
    run_id = desk.run(documents(2))
    desk.change(keep_payloads=1)
    desk.execute("UPDATE runs SET state_since = now() - interval '2 days'")
    retention.wake(desk.desk.settings)
    desk.perform("drop", retention.TARGET)
    assert desk.scalar("SELECT count(*) FROM item_params") == 0
    return run_id


def test_the_pages_of_a_run_without_payloads_say_so(operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.run(documents(1))
    assert "Process again" in operator.get(f"/runs/{run_id}/")
    run_id = dropped(desk)
    day = f"{db.utcnow():%Y-%m-%d}"
    request = operator.get("/requests/2/")
    assert request.count(f"Dropped on {day}, some time after its run was over.") == 2
    assert "Process again" not in request and "Output" in request
    run = operator.get(f"/runs/{run_id}/")
    assert f"dropped on {day}" in run
    assert "Process again" not in run and "Rebuild all" in run
    for part in ("result", "request"):
        assert f"dropped on {day}" in operator.get(f"/requests/2/{part}.json", status=404)
    assert operator.open("/requests/2/output.json").status_code == 200
    version = desk.desk.registry.task("classify").version
    refused = operator.post(f"/runs/{run_id}/reprocess", which="all", version=version)
    assert "there is nothing to process again" in refused and f"dropped on {day}" in refused
