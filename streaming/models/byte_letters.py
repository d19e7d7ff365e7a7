"""The letters that byte-level BPE writes bytes with (GPT-2)."""

__all__ = ["byte_letters"]


def byte_letters() -> dict[str, int]:
    """Printable ones stand for themselves, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return letters | {chr(256 + n): byte for n, byte in enumerate(others)}
