"""Conversation items on the wire (protocols.md 1.4, 1.17): reading a client's, writing ours in either dialect."""

import json
from typing import Final, Literal

from agent.events import ItemReference
from agent.items import (
    ApprovalRequest,
    ApprovalResponse,
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    Item,
    ItemStatus,
    Message,
    PartKind,
    ServerCall,
    ToolList,
)
from server.limits import Limits
from server.realtime.dialect import Dialect
from server.realtime.fields import Fields
from server.realtime.session_update import limited_text

__all__ = ["item_json", "read_context_item", "read_item", "read_item_id"]

_BETA_PARTS: Final = {PartKind.OUTPUT_TEXT: "text", PartKind.OUTPUT_AUDIO: "audio"}
_TEXT_PARTS: Final = ("input_text", "output_text", "text")
_SPOKEN_PARTS: Final = ("output_audio", "audio")
_MAX_ID: Final = 128
_MAX_PARTS: Final = 64
_MAX_IMAGE: Final = 700_000
"""Characters of a data URI: its item is echoed in one frame, and clients take frames up to 1 MiB (checklist 15)."""


# ---------------------------------------------------------------------------------------------------------- reading


def read_item(item: Fields, limits: Limits) -> Item:
    """An item a client creates. Its id is "" where the client gave none. Raises `BadField`."""
    item_id = read_item_id(item, "id") or ""
    match item.choice("type", ("message", "function_call", "function_call_output", "mcp_approval_response")):
        case "message":
            return _read_message(item, item_id, limits)
        case "function_call":
            name, call_id = item.need_text("name"), item.need_text("call_id")
            item.need_text("arguments")
            return FunctionCall(item_id, call_id, name, limited_text(item, "arguments", limits) or "")
        case "function_call_output":
            call_id = item.need_text("call_id")
            item.need_text("output")
            return FunctionCallOutput(item_id, call_id, limited_text(item, "output", limits) or "")
        case "mcp_approval_response":
            request_id, approve = item.need_text("approval_request_id"), item.flag("approve")
            if approve is None:
                raise item.missing("approve")
            return ApprovalResponse(item_id, request_id, approve, limited_text(item, "reason", limits) or "")
        case _:
            raise item.missing("type")


def read_context_item(item: Fields, limits: Limits) -> Item | ItemReference:
    """An item of `response.create.input`, where one of the conversation may be named by its id."""
    if item.text("type") == "item_reference":
        return ItemReference(item.need_text("id"))
    return read_item(item, limits)


def read_item_id(fields: Fields, key: str) -> str | None:
    """An id a client made, kept as it is."""
    item_id = fields.text(key)
    if item_id is not None and not 0 < len(item_id) <= _MAX_ID:
        raise fields.bad_value(key, f"'{fields.param(key)}' must have 1 to {_MAX_ID} characters.")
    return item_id


def _read_message(item: Fields, item_id: str, limits: Limits) -> Message:
    role = _read_role(item)
    parts = item.children("content")
    if parts is None:
        raise item.missing("content")
    if len(parts) > _MAX_PARTS:
        raise item.bad_value("content", f"Too many content parts: at most {_MAX_PARTS}, but got {len(parts)}.")
    status = ItemStatus.INCOMPLETE if item.text("status") == "incomplete" else ItemStatus.COMPLETED
    return Message(item_id, role, tuple(_read_part(part, role, limits) for part in parts), status)


def _read_role(item: Fields) -> Literal["system", "user", "assistant"]:
    match item.choice("role", ("system", "user", "assistant")):
        case "system":
            return "system"
        case "user":
            return "user"
        case "assistant":
            return "assistant"
        case _:
            raise item.missing("role")


def _read_part(part: Fields, role: str, limits: Limits) -> ContentPart:
    """One part. Clients mix the text spellings up, so the role decides which one is meant."""
    kind = part.need_text("type")
    if kind in _TEXT_PARTS:
        part.need_text("text")
        text = limited_text(part, "text", limits)
        return ContentPart(PartKind.OUTPUT_TEXT if role == "assistant" else PartKind.INPUT_TEXT, text)
    if kind in _SPOKEN_PARTS and role == "assistant":
        return ContentPart(PartKind.OUTPUT_AUDIO, limited_text(part, "transcript", limits))
    if kind == "input_audio" and role == "user":
        transcript = limited_text(part, "transcript", limits)
        if transcript is None:
            # Recorded audio inside an item never passes the Ear; saying so beats a model that silently did not hear it.
            raise part.bad_value("transcript", "Audio in an item needs its transcript; to send audio, append it to the input buffer.")
        return ContentPart(PartKind.INPUT_AUDIO, transcript)
    if kind == "input_image" and role == "user":
        url = part.need_text("image_url")
        if not url.startswith("data:image/") or len(url) > _MAX_IMAGE:
            raise part.bad_value("image_url", f"'{part.param('image_url')}' must be a data URI of an image, at most {_MAX_IMAGE} bytes.")
        return ContentPart(PartKind.INPUT_IMAGE, url)
    raise part.not_among("type", kind, _allowed_parts(role))


def _allowed_parts(role: str) -> tuple[str, ...]:
    if role == "assistant":
        return ("output_text", "output_audio")
    return ("input_text", "input_audio", "input_image") if role == "user" else ("input_text",)


# ---------------------------------------------------------------------------------------------------------- writing


def item_json(item: Item, dialect: Dialect) -> dict[str, object]:
    """An item without its audio bytes, which no client read for protocols.md needs."""
    head: dict[str, object] = {"id": item.id, "object": "realtime.item", "status": item.status.value}
    match item:
        case Message():
            return head | {"type": "message", "role": item.role, "content": [_part_json(part, dialect) for part in item.content]}
        case FunctionCall():
            return head | {"type": "function_call", "name": item.name, "call_id": item.call_id, "arguments": item.arguments}
        case FunctionCallOutput():
            return head | {"type": "function_call_output", "call_id": item.call_id, "output": item.output}
        case _:
            return head | _server_tool_json(item)


def _server_tool_json(item: ServerCall | ApprovalRequest | ApprovalResponse | ToolList) -> dict[str, object]:
    """Items about tools that the server runs (protocols.md 1.4)."""
    wire: dict[str, object]
    match item:
        case ServerCall():
            wire = {"type": "mcp_call", "server_label": item.server_label, "name": item.name, "arguments": item.arguments}
            if item.output is not None:
                wire["output"] = item.output
            if item.error is not None:
                wire["error"] = {"type": "tool_execution_error", "content": [{"type": "text", "text": item.error}]}
            if item.approval_id is not None:
                wire["approval_request_id"] = item.approval_id
        case ApprovalRequest():
            wanted = {"server_label": item.server_label, "name": item.name, "arguments": item.arguments}
            wire = {"type": "mcp_approval_request", **wanted}
        case ApprovalResponse():
            wire = {"type": "mcp_approval_response", "approval_request_id": item.request_id, "approve": item.approve}
            if item.reason:
                wire["reason"] = item.reason
        case ToolList():
            tools = [
                {"name": tool.name, "description": tool.description, "input_schema": json.loads(tool.parameters)} for tool in item.tools
            ]
            wire = {"type": "mcp_list_tools", "server_label": item.server_label, "tools": tools}
    return wire


def _part_json(part: ContentPart, dialect: Dialect) -> dict[str, object]:
    name = _BETA_PARTS.get(part.kind, part.kind.value) if dialect is Dialect.BETA else part.kind.value
    match part.kind:
        case PartKind.INPUT_AUDIO:
            return {"type": name, "transcript": part.text}  # the key must be there, null is fine (checklist 7)
        case PartKind.OUTPUT_AUDIO:
            return {"type": name} if part.text is None else {"type": name, "transcript": part.text}
        case PartKind.INPUT_IMAGE:
            return {"type": name, "image_url": part.text}
        case _:
            return {"type": name, "text": part.text or ""}
