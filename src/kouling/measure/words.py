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
    # kouling evaluate
    "What {model} hears": "{model} 听到了什么",
    "Recordings that cannot be read": "无法读取的录音",
    "{count} were left out:": "略去 {count} 个:",
    "commands": "口令",
    "unknown words": "未知词",
    "silence and noise": "静音与噪声",
    "all clips": "全部片段",
    "said": "所说",
    "clips": "片段",
    "right": "正确",
    "95 % interval": "95 % 区间",
    "A command is right if it is heard; unknown words, silence and noise if no command is.": (
        "口令被听到即为正确;未知词、静音与噪声则以未报口令为正确。"
    ),
    "Counted as unknown words: {names}": "按未知词计:{names}",
    "Which command, and what it is mistaken for": "各口令及其误认",
    "Rows: what was said. Columns: what was decided.": "行:所说;列:所判。",
    "threshold": "阈值",
    "taken for": "误认为",
    "What confidence is worth": "置信度是否可信",
    "confidence, on average": "平均置信度",
    "of these right": "其中正确",
    "commands reported": "所报口令数",
    "Misses against false alarms": "漏报与误报",
    "Each curve moves all thresholds together; the points are the thresholds as they are, with 95 % intervals.": (
        "曲线:所有阈值一同移动;圆点:现用阈值及其 95 % 区间。"
    ),
    "heard in": "所听",
    "hours": "小时",
    "false alarms": "误报",
    "an hour": "每小时",
    "speech": "连续语音",
    "noise": "噪声",
    "Every command in these recordings counts, words that are truly said among them too.": (
        "录音中的每个口令都计为误报,确实说出的词也不例外。"
    ),
    "In noise, and at other levels": "噪声与音量",
    "clean": "原样",
    "signal to noise": "信噪比",
    "gain": "增益",
    "Noise: cut from the recordings of --noise.": "噪声:取自 --noise 的录音。",
    "Noise: pink.": "噪声:粉红噪声。",
    "When the command comes": "口令何时报出",
    "From the end of the spoken word, by its energy, to the event, in a live stream; to 50 ms.": (
        "实时流中,从词尾(按能量)到报出口令的时间;精确到 50 毫秒。"
    ),
    "Missed by little: said, and not sure enough": "险些听到:说了,但把握不足",
    "Almost heard: not said, and nearly sure enough": "险些误报:没说,却几乎有把握",
    "Heard, and not said": "误报:没说,却听到了",
    "{command} at {confidence} (threshold {threshold}), {seconds} s into {recording}": (
        "{command},置信度 {confidence}(阈值 {threshold}),{recording} 第 {seconds} 秒"
    ),
    "decided": "所判",
    "{share} of the commands are heard right": "{share} 的口令听对",
    "false alarms an hour (leftmost: none heard)": "每小时误报(最左:没有误报)",
    "commands missed, %": "漏报口令,%",
    "{misses} missed at {rate} false alarms an hour: {kind}": "漏报 {misses},每小时误报 {rate} 次:{kind}",
    "signal to noise, dB": "信噪比,dB",
    "gain, dB": "增益,dB",
    "commands heard right, %": "听对的口令,%",
    "{share} at 0 dB": "0 dB 时 {share}",
    "{share} at {gain} dB": "{gain} dB 时 {share}",
    "ms after the end of the word": "词尾之后的毫秒数",
    "Half of the commands come within {median} ms, 95 % within {p95} ms": (
        "半数口令在 {median} 毫秒内报出,95 % 在 {p95} 毫秒内"
    ),
    "(unknown)": "(未知)",
    "(silence)": "(静音)",
    # tune
    "Tuning": "调参",
    "setting": "设置",
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
