"""The HTTP side: models, health, metrics, ephemeral keys, CORS, the page."""

import json

import pytest

from agent.settings import SessionSettings
from server.ledger import STAGES, TurnLedger
from server.limits import Limits, SessionSlots
from server.metrics import Metrics
from streaming.events import SoundKind


async def test_models(start) -> None:
    served = await start(models=["pocket", "edge"], voices=("joe",), languages=("en",))
    listed = (await served.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["pocket", "edge"]
    edge = (await served.get("/v1/models/edge")).json()
    assert (edge["object"], edge["voices"], edge["languages"]) == ("model", ["joe"], ["en"])
    missing = await served.get("/v1/models/none")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_api_requests_need_a_key_and_probes_do_not(start) -> None:
    served = await start(api_keys=["right"])
    assert (await served.get("/v1/models")).status_code == 401
    assert (await served.get("/v1/models", {"Authorization": "Bearer right"})).status_code == 200
    assert (await served.get("/healthz")).json() == {"status": "ok"}


async def test_slashes_are_collapsed(start) -> None:
    assert (await (await start()).get("//v1///models")).status_code == 200


async def test_metrics_are_for_this_machine_and_holders_of_a_key(start, dial) -> None:
    served = await start(api_keys=["right"])
    await dial(served, additional_headers={"Authorization": "Bearer right"})
    text = (await served.get("/metrics")).text
    assert "vivavoce_sessions 1.0" in text
    forwarded = {"X-Forwarded-For": "10.0.0.1"}
    assert (await served.get("/metrics", forwarded)).status_code == 401
    assert (await served.get("/metrics", forwarded | {"Authorization": "Bearer right"})).status_code == 200


def test_turns_become_histograms() -> None:
    metrics = Metrics()
    metrics.turn(TurnLedger("i", "r", (1_600,) * len(STAGES), 1_600 * len(STAGES)))
    metrics.turn(TurnLedger("i", "r", (1_600,) * len(STAGES), 1_600 * len(STAGES), played=960, reported=True))
    metrics.turn(TurnLedger("i", "r", (1_600,) * len(STAGES), 1_600 * len(STAGES), played=960))
    metrics.speculation(True, 0)
    metrics.speculation(False, 7)
    metrics.sound(SoundKind.DOG)
    text = metrics.text().decode()
    assert 'vivavoce_speculations_total{outcome="adopted"} 1.0' in text
    assert 'vivavoce_speculations_total{outcome="dropped"} 1.0' in text
    assert 'vivavoce_sounds_total{kind="dog"} 1.0' in text
    assert "vivavoce_speculation_wasted_tokens_total 7.0" in text
    assert "vivavoce_turn_seconds_sum 0.8" in text
    assert 'vivavoce_turn_stage_seconds_sum{stage="played"} 0.06\n' in text
    assert all(f'vivavoce_turn_stage_seconds_sum{{stage="{stage}"}} 0.1' in text for stage in STAGES)


async def test_an_ephemeral_key_opens_a_session_with_its_settings(start, dial) -> None:
    served = await start(api_keys=["right"])
    body = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": {"type": "realtime", "instructions": "Be brief."}}
    lasting = {"Authorization": "Bearer right"}
    made = (await served.post("/v1/realtime/client_secrets", json.dumps(body).encode(), lasting)).json()
    assert made["value"].startswith("ek_")
    assert made["session"]["instructions"] == "Be brief."
    client = await dial(served, subprotocols=["realtime", f"openai-insecure-api-key.{made['value']}"])
    assert client.got[0]["session"]["instructions"] == "Be brief."
    ephemeral = {"Authorization": f"Bearer {made['value']}"}
    assert (await served.post("/v1/realtime/client_secrets", b"", ephemeral)).status_code == 401


async def test_the_beta_form_of_an_ephemeral_key(start) -> None:
    served = await start()
    made = (await served.post("/v1/realtime/sessions", b'{"voice": "ash", "modalities": ["text"]}')).json()
    assert made["client_secret"]["value"].startswith("ek_")
    assert (made["voice"], made["modalities"]) == ("ash", ["text"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_event"),
        (b'{"session": {"audio": {"output": {"speed": 9}}}}', 400, "invalid_value"),
        (b'{"expires_after": {"seconds": 1}}', 400, "invalid_value"),
        (b" " * (600 << 10), 413, "request_too_large"),
    ],
)
async def test_a_bad_request_for_a_key(start, body, status, code) -> None:
    response = await (await start()).post("/v1/realtime/client_secrets", body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_cors_is_for_allowed_origins(start) -> None:
    served = await start(allowed_origins=["https://app.example"])
    allowed = await served.get("/v1/models", {"Origin": "https://app.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert {"Location", "ETag", "Link"} == {name.strip() for name in allowed.headers["access-control-expose-headers"].split(",")}
    other = await served.get("/v1/models", {"Origin": "https://evil.example"})
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (403, False)


async def test_a_rebound_name_reaches_nothing(start) -> None:
    served = await start()
    assert (await served.get("/v1/models", {"Host": "evil.example"})).status_code == 403
    assert (await served.get("/metrics", {"Host": "evil.example"})).status_code == 403


async def test_the_page_comes_with_a_strict_policy_and_nothing_else_of_its_package(start) -> None:
    served = await start()
    for path in ("/", "/no.such.js", "/__init__.py", "/../pyproject.toml"):
        response = await served.get(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert path == "/" or response.status_code == 404


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="max_items"):
        Limits(max_items=0)


def test_slots_are_counted() -> None:
    slots = SessionSlots(1)
    assert (slots.take(), slots.take(), slots.taken) == (True, False, 1)
    slots.give_back()
    assert slots.take()


def test_defaults_need_no_client() -> None:
    assert SessionSettings().turn_detection is not None
