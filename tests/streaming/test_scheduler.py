"""Who leads a batch, who joins it, and what happens where one fails."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from streaming.batching import Call, Work
from streaming.scheduler import Job, Urgency, choose, run


@dataclass
class Model:
    """Notes its batches; `poison` can't be computed."""

    rows_at_once: int = 64
    batches: list[list[str]] = field(default_factory=list)
    poison: str = ""

    def run(self, calls: Sequence[Call]) -> None:
        names = [call.name for call in calls if isinstance(call, Ask)]
        self.batches.append(names)
        if self.poison in names:
            raise RuntimeError("it can't be computed")


@dataclass
class Ask:
    station: Model
    name: str
    rows: int = 1


def job(model: Model, name: str, urgency: Urgency, deadline: float = 0.0, rows: int = 1, log: list[str] | None = None) -> Job:
    def work() -> Work[None]:
        try:
            yield Ask(model, name, rows)
        except RuntimeError as error:
            if log is not None:
                log.append(f"{name}: {error}")

    made = Job(work(), urgency, deadline)
    made.advance()
    return made


def names(batch: Sequence[Job]) -> list[str]:
    return [job.call.name for job in batch if isinstance(job.call, Ask)]


def test_the_most_urgent_leads_and_only_its_model_runs() -> None:
    language, hearing = Model(), Model()
    jobs = [
        job(language, "ahead", Urgency.AHEAD),
        job(hearing, "listening", Urgency.LISTENING),
        job(language, "late", Urgency.AWAITED, 2.0),
        job(language, "early", Urgency.AWAITED, 1.0),
        job(language, "dry", Urgency.RUNNING_DRY, 9.0),
    ]
    assert names(choose(jobs)) == ["dry", "early", "late", "ahead"]


def test_a_long_prefill_does_not_join_what_somebody_waits_for() -> None:
    model = Model()
    jobs = [
        job(model, "token", Urgency.AWAITED),
        job(model, "long", Urgency.PREFILL, rows=60),
        job(model, "short", Urgency.PREFILL, rows=9),
    ]
    assert names(choose(jobs)) == ["token", "short"]
    assert names(choose(jobs[1:])) == ["long"]


def test_a_batch_is_bounded_but_its_leader_is_never_left_out() -> None:
    model = Model(rows_at_once=8)
    assert names(choose([job(model, "big", Urgency.LISTENING, rows=20), job(model, "more", Urgency.LISTENING, 1.0)])) == ["big"]
    many = [job(model, str(n), Urgency.LISTENING, float(n)) for n in range(12)]
    assert len(choose(many)) == 8


def test_nothing_to_do_is_no_batch() -> None:
    assert choose([]) == []
    idle = job(Model(), "done", Urgency.PREFILL)
    idle.advance()
    assert idle.done
    assert choose([idle]) == []


def test_what_fails_together_is_made_alone_and_only_the_guilty_hears_of_it() -> None:
    model, log = Model(poison="b"), list[str]()
    batch = [job(model, name, Urgency.AWAITED, log=log) for name in "abc"]
    run(batch)
    assert model.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert log == ["b: it can't be computed"]
    assert all(each.done for each in batch)


def test_work_that_fails_without_a_word_is_over() -> None:
    def broken() -> Work[None]:
        yield Ask(Model(), "x")
        raise ValueError("a bug of ours")

    made = Job(broken(), Urgency.PREFILL, 0.0)
    made.advance()
    run([made])
    assert made.done


def test_those_that_are_due_take_turns_and_who_is_not_keeps_its_place() -> None:
    model, now = Model(rows_at_once=1), 10.0
    due = [job(model, name, Urgency.LISTENING, deadline) for name, deadline in (("a", 8.0), ("b", 9.0))]
    later = job(model, "later", Urgency.LISTENING, 12.0)
    order = []
    for _ in range(4):
        (leader,) = choose([later, *due])
        order += names([leader])
        leader.served(now)
        now += 0.1
    later.served(now)
    assert order == ["a", "b", "a", "b"]
    assert later.deadline == 12.0


def test_who_has_patience_is_served_again_after_it() -> None:
    model, now = Model(rows_at_once=1), 10.0
    reader = job(model, "reader", Urgency.LISTENING, 9.0)
    reader.patience = 0.5
    order = []
    for number in range(12):
        (leader,) = choose([reader, job(model, f"{number}", Urgency.LISTENING, now)])
        order += names([leader])
        leader.served(now)
        now += 0.1
    assert [place for place, name in enumerate(order) if name == "reader"] == [0, 6]
