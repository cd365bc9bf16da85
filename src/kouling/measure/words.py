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
    # of measure and compare
    "300": "300 帧",
    "500": "500 帧",
    "Data sheet": "数据表",
    "Side by side": "并排比较",
    "Does it slow down?": "会变慢吗？",
    "A step takes {early} around second 10 and {late} in the last minute of {minutes}: {ratio} times.": (
        "一步在第 10 秒前后用 {early}，在 {minutes} 分钟的最后一分钟用 {late}：{ratio} 倍。"
    ),
    "From samples to commands: features, encoder, decoder.": "从采样到命令：特征、编码器、解码器。",
    "Delay": "延迟（算法）",
    "delay": "算法延迟",
    "missed at {rate}/h": "每小时误报 {rate} 次时漏报",
    "Right: {clips} clips, thresholds as they are.": "正确:{clips} 个片段,阈值不变。",
    "Missed: commands, all thresholds moved together to keep the rate in {hours} h of speech.": (
        "漏报:所有阈值一同移动,使 {hours} 小时语音中的误报不超过该频率。"
    ),
    "Step {step} ms + lookahead {lookahead} ms = {delay} ms; a feature frame adds 15 ms.": (
        "步长 {step} ms + 前瞻 {lookahead} ms = {delay} ms；特征帧另加 15 ms。"
    ),
    (
        "From the end of a spoken command to its event: median {median} ms, 95 % within {p95} ms; "
        "{heard} clips heard, {missed} missed, {skipped} skipped."
    ): (
        "从命令说完到事件：中位数 {median} ms，95 % 在 {p95} ms 以内；"
        "听到 {heard} 段，漏掉 {missed} 段，跳过 {skipped} 段。"
    ),
    "total planned": "计划总计",
    "private": "私有",
    "peak": "峰值",
    "private, whole process": "私有（整个进程）",
    "variables": "变量",
    "memory": "内存",
    "latency": "时延",
    "Memory": "内存",
    "Latency": "时延",
    "batch 1": "批量 1",
    "batch 1, one core": "批量 1，单核",
    "Planned: counted. Private and peak: what the system says of a fresh process; MB = 1,000,000 bytes.": (
        "计划：由配置算出。私有与峰值：操作系统对全新进程的报告；MB = 1,000,000 字节。"
    ),
    "What is in memory while the encoder runs, operation by operation.": "编码器运行时内存里有什么，逐个运算。",
    "layer": "层",
    "weights": "权重",
    "multiply-accumulates": "乘加",
    "activations, peak": "激活（峰值）",
    "median": "中位数",
    "Other processes disturbed most calls: times are too long. Measure on an idle machine.": (
        "多数调用受到其他进程干扰：时间偏长。请在空闲的机器上测量。"
    ),
    "p99": "p99",
    "real-time factor": "实时率",
    "A step: {macs} M multiply-accumulates; numpy copies as many bytes as the model has in {copy}.": (
        "一步：{macs} M 次乘加；numpy 复制与模型同样多的字节用 {copy}。"
    ),
    "Energy, by proxy: {macs} M multiply-accumulates and {moved} MB moved for a second of audio.": (
        "能耗（间接估计）：每秒音频 {macs} M 次乘加，搬运 {moved} MB。"
    ),
    "block": "块",
    "reserved from the start": "一开始就保留",
    "Memory besides the model": "模型以外的内存",
    "seconds since the start": "开始以来的秒数",
    "Time of a step: {ratio} times that of second 10": "一步的时间：第 10 秒的 {ratio} 倍",
    "ms from the end of the command to its event": "从命令说完到事件的毫秒数",
    "Time to command": "命令响应时间",
    "stem": "前端",
    "head": "输出层",
    "feed-forward in": "前馈（入）",
    "feed-forward out": "前馈（出）",
    "attention": "注意力",
    "convolution": "卷积",
    "other state": "其他状态",
    "other input and output": "其他输入和输出",
    "keys of the past": "过去的键",
    "values of the past": "过去的值",
    "convolution's past": "卷积的过去",
    "stem state": "前端状态",
    "next keys": "下一步的键",
    "next values": "下一步的值",
    "next convolution's past": "下一步的卷积过去",
    "next stem state": "下一步的前端状态",
    "features": "特征",
    "log-probabilities": "对数概率",
    "decoder": "解码器",
    "features that wait": "等待的特征",
    "log-probabilities that wait": "等待的对数概率",
    "stream and its samples": "流及其采样",
    "other activations": "其他激活",
    "window, then positions": "窗口，然后频率位置",
    "positions": "频率位置",
    "convolved": "卷积结果",
    "stem rows": "前端行",
    "normalised": "归一化",
    "wide rows": "宽行",
    "scores": "注意力分数",
    "biases of distances": "距离偏置",
    "int8 inputs": "int8 输入",
    "join": "拼接",
    "patch": "块卷积",
    "silu": "SiLU",
    "deepen": "加深卷积",
    "add": "相加",
    "mix": "混合卷积",
    "transpose": "转置",
    "project": "投影",
    "normalise": "归一化结果",
    "expand": "扩展",
    "contract": "收缩",
    "halve": "减半",
    "query, key, value": "查询、键、值",
    "keys and values": "键和值",
    "attend": "加权和",
    "output": "输出",
    "join heads": "合并头",
    "gate": "门控",
    "glu": "GLU",
    "depthwise": "逐通道卷积",
    "batch norm": "批归一化",
}


def speaker(lang: str) -> Say:
    """A function that says a label in that language. Raises: ValueError for a language that there is none of, KeyError
    for a label that nobody translated."""
    if lang not in LANGUAGES:
        raise ValueError(f"--lang {lang}; allowed: {', '.join(LANGUAGES)}")
    return (lambda label: label) if lang == "en" else CHINESE.__getitem__
