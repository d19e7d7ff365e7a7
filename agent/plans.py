"""From a request for a response to what exactly is asked of the engine: the session's settings with the request's on top."""

from collections.abc import Mapping

from agent.events import CreateResponse, ItemReference
from agent.history import History
from agent.memory import Memory
from agent.prompt import context_of
from agent.response import ResponsePlan
from agent.settings import SessionSettings, ToolChoice
from streaming.events import ContextMessage, RespondOptions

__all__ = ["context_for", "plan_response"]


def context_for(
    request: CreateResponse, settings: SessionSettings, history: History, memory: Memory, heard: Mapping[str, str]
) -> tuple[ContextMessage, ...] | None:
    """The messages the reply is made from; None for the conversation itself. Raises RefusedError for a reference to no item."""
    if request.in_conversation and request.input is None and request.instructions is None:
        return None
    instructions = settings.system if request.instructions is None else request.instructions
    if request.input is None:
        return memory.context(instructions, history.items)
    code = "item_retrieve_invalid_item_id"
    items = [history.find(item.item_id, code) if isinstance(item, ItemReference) else item for item in request.input]
    return context_of(instructions, items, heard)


def plan_response(request: CreateResponse, settings: SessionSettings, context: tuple[ContextMessage, ...] | None) -> ResponsePlan:
    """Everything the response is made with."""
    output_audio = settings.output_audio if request.output_audio is None else request.output_audio
    output_format = request.output_format or settings.output_format
    voice = request.voice or settings.voice
    temperature = settings.temperature if request.temperature is None else request.temperature
    limit = settings.max_output_tokens if request.max_output_tokens is None else request.max_output_tokens
    max_output_tokens = None if limit == "inf" else limit
    server_tools = settings.server_tools if request.in_conversation else ()
    tools = settings.tools if request.tools is None else request.tools
    options = RespondOptions(
        audio=output_audio,
        rate=output_format.rate,
        voice=voice,
        speed=settings.speed,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        tools=(*(tool.spec for tool in server_tools), *tools),
        tool_choice=_choice(request.tool_choice or settings.tool_choice),
        context=context,
    )
    return ResponsePlan(
        in_conversation=request.in_conversation,
        output_audio=output_audio,
        output_format=output_format,
        voice=voice,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        metadata=request.metadata,
        interruptible=request.interruptible,
        options=options,
        server_tools=server_tools,
        asks_agent=settings.asks_agent and request.in_conversation and request.input is None,
    )


def _choice(choice: ToolChoice) -> str:
    return choice.name if choice.mode == "function" else choice.mode
