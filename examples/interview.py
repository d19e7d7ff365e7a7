"""An interviewer who may interrupt. Serve it with `vivavoce serve examples/interview.py:agent`.

The questions are fixed and every answer is kept; in between the model may ask back once. With `interjects` it may put in a short word
while the caller goes on and on; when it does so is the server's affair (docs/agents.md).
"""

from vivavoce import Agent, Call

QUESTIONS = ("What do you do for a living?", "What do you like about it?", "And what would you change?")


def on_start(call: Call) -> None:
    """Begin with the first question."""
    call.state["answers"] = []
    call.say(f"Thank you for taking the time. {QUESTIONS[0]}")


def on_turn(call: Call, words: str) -> str | None:
    """Keep the answer and ask the next question; short answers are the model's to follow up, once."""
    answers = call.state["answers"]
    if len(words.split()) < 4 and not call.state.pop("followed", False):
        call.state["followed"] = True
        return None
    answers.append(words)
    call.pin(f"Asked: {QUESTIONS[len(answers) - 1]} Answered: {words}")
    if len(answers) == len(QUESTIONS):
        call.end("That was all I wanted to know. Thank you.", reason="finished")
        return None
    return QUESTIONS[len(answers)]


def on_end(call: Call) -> None:
    """What came of it."""
    for question, answer in zip(QUESTIONS, call.state["answers"], strict=False):
        print(f"{question}\n    {answer}")


agent = Agent(
    name="interviewer",
    instructions="You interview people about their work. Ask one short, friendly question about what they have just said.",
    interjects=True,
    eagerness="high",
    idle_prompts=["Take your time.", "Shall I ask something else?"],
    goodbye="Another time, then. Goodbye.",
    on_start=on_start,
    on_turn=on_turn,
    on_end=on_end,
)
