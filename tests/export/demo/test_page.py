from __future__ import annotations

from reaugkd.export.demo.page import WIDTH, Page, cut, points


def said(page_step: str, *commands: str) -> list[str]:
    lines: list[str] = []
    Page(lines.append).step("Title", page_step, *commands)
    return "\n".join(lines).splitlines()


def test_a_long_command_is_broken_before_options_and_can_be_typed() -> None:
    short, long = "reaugkd inspect demo/bundle", "reaugkd train " + " ".join(f"--option{i} value" for i in range(12))
    lines = said("Text.", short, long)
    assert lines[:4] == ["", "1. Title", "   Text.", f"     $ {short}"]
    assert all(len(line) <= WIDTH for line in lines) and all(line.endswith(" \\") for line in lines[4:-1])
    typed = " ".join(line.removesuffix("\\").strip() for line in lines[4:])
    assert typed == f"$ {long}"


def test_a_long_sentence_is_wrapped_and_a_long_text_is_cut() -> None:
    assert max(map(len, said("word " * 60))) <= WIDTH
    assert cut("     two\nlines", 100) == "     two lines"
    assert cut("x" * 120, 100) == "x" * 97 + "..."


def test_a_difference_is_in_points() -> None:
    assert points(0.024, (0.016, 0.031)) == "+2.4 points (95 % interval +1.6 to +3.1)"
