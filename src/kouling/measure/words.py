"""The labels of reports in Chinese. English is what the code says; a label without a translation is a mistake."""

from __future__ import annotations

from collections.abc import Callable

LANGUAGES = ("en", "zh")
Say = Callable[[str], str]

CHINESE: dict[str, str] = {
    "model": "模型",
    "runtime": "运行时",
    "total": "总计",
    "bytes": "字节",
    "frames": "帧",
    "step": "步",
    # tune
    "Tuning": "调参",
    "setting": "设置",
    "right": "判对",
    "±": "±",
    "delay ms": "延迟 ms",
    "heard ms": "出结果 ms",
    "p95": "p95",
    "mul-adds/s": "乘加/秒",
    "µs/s": "µs/秒",
    "KB": "KB",
    "front": "前沿",
    "cached": "缓存",
    "reason": "原因",
    "% of clips right": "判对的片段（%）",
    "Within {limit}: {accuracy} right": "{limit} 以内：判对 {accuracy}",
    "Nothing within {limit}": "{limit} 以内没有设置",
    "At any delay: {accuracy} right": "不限延迟：判对 {accuracy}",
    "Not without training, or not at all": "需要训练，或不可能",
    "Clips that could not be read": "读不了的片段",
    "Circled: as trained. Line: nothing is better in both.": "圈：训练时的设置。线：没有别的设置两项都更好。",
    "{done} of {there} clips, every setting on the same ones.": "{there} 个片段中的 {done} 个，各设置所听相同。",
    "Setting: chunk/cached/step, in feature frames of 10 ms. ±: half of the 95 % interval.": (
        "设置：块/缓存/步，单位是 10 毫秒的特征帧。±：95 % 置信区间的一半。"
    ),
    "Delay: the step and its lookahead. Heard: from the word's end to the command, median and p95.": (
        "延迟：步加前瞻。出结果：从说完到出命令，中位数和 p95。"
    ),
    "µs/s: of one core in the C engine for a second of audio, a step at a time. KB: model and stream.": (
        "µs/秒：C 引擎逐步计算一秒音频所占一个核的时间。KB：模型加流。"
    ),
    "Front: no other setting is as good in right, delay, mul-adds and KB.": (
        "前沿：没有别的设置在判对、延迟、乘加、KB 上都不差。"
    ),
    "No setting has a delay of at most {limit}; the least is {least} ms.": (
        "没有延迟不超过 {limit} 的设置；最小为 {least} ms。"
    ),
    ", {wait:.0f} ms from the word's end to the command": "，说完 {wait:.0f} ms 后出结果",
    "Best within {limit} of delay: {setting} with {accuracy} right{heard}, {size:.0f} KB.": (
        "延迟 {limit} 以内最好的：{setting}，判对 {accuracy}{heard}，{size:.0f} KB。"
    ),
}


def speaker(lang: str) -> Say:
    """A function that says a label in that language. Raises: ValueError for a language that there is none of, KeyError
    for a label that nobody translated."""
    if lang not in LANGUAGES:
        raise ValueError(f"--lang {lang}; allowed: {', '.join(LANGUAGES)}")
    return (lambda label: label) if lang == "en" else CHINESE.__getitem__
