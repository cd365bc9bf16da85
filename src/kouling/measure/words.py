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
    "p95": "p95",
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
    "clips": "片段",
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
    "window": "窗口",
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
