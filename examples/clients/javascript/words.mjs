// What a model's log-probabilities say, where its units are words. The rules are those of kouling's decoder.py for
// phrases of one word: the flow into a word is the probability that it begins in a frame, and the sum of it over the
// few frames of a spike is the probability that it was said.

const USUAL = {
  threshold: 0.5, refractory_s: 0.5, settle_s: 0.16, isolation_s: 0, hesitation_s: 0, sure: 0.98,
  confidence_slope: 1, confidence_bias: 0, onset_s: {}, offset_s: {},
};

export class Words {
  constructor(info) {
    const { encoder, features } = info.config;
    this.units = info.units;
    this.told = { ...USUAL, ...info.decoder };
    this.frameS = (encoder.subsampling * features.frame_shift_ms) / 1000;
    this.lookaheadS = ((encoder.streaming_chunk_size - encoder.streaming_step_size) * features.frame_shift_ms) / 1000;
    this.settle = Math.max(Math.round(this.told.settle_s / this.frameS), 1);
    this.hesitation = Math.round(this.told.hesitation_s / this.frameS);
    this.isolation = Math.round(this.told.isolation_s / this.frameS);
    this.known = []; // P(no unknown word) of the last frames
    this.now = 0;
    this.before = new Array(this.units.length).fill(0);
    this.waiting = [];
    this.heard = new Map(); // unit -> encoder frame
  }

  // logProbs of the next encoder frame -> words that are decided by it, each once
  accept(logProbs) {
    const probs = Array.from(logProbs, Math.exp);
    const alone = this.known.reduce((a, b) => a * b, 1); // no unknown word before it
    const flow = probs.map((p, unit) => p * (1 - this.before[unit]) * alone); // a word begins here
    this.before = probs;
    if (this.isolation) this.known = [...this.known, 1 - probs[1]].slice(-this.isolation);
    const growing = this.waiting.filter((word) => this.now - word.grown <= this.settle);
    if (this.isolation || this.hesitation)
      for (const word of this.waiting)
        if (growing.includes(word) || this.hesitating(word, this.now)) word.alone *= 1 - probs[1];
    for (let unit = 2; unit < flow.length; unit++) { // behind blank and unknown
      if (flow[unit] <= 0.001) continue;
      let word = growing.find((each) => each.unit === unit);
      if (!word && flow[unit] > 0.02) {
        word = { unit, grown: this.now, spike: 0, probability: 0, alone: 1 };
        this.waiting.push(word);
      }
      if (!word) continue;
      if (flow[unit] > 0.02) word.grown = this.now;
      word.probability += flow[unit];
      word.spike += ((this.now - word.spike) * flow[unit]) / word.probability;
    }
    return this.decided(this.now++);
  }

  // Words that grow no more: of those in one place the likeliest. now: infinity if the stream has ended.
  decided(now = Infinity) {
    const found = [];
    for (const word of [...this.waiting].sort((a, b) => b.probability - a.probability)) {
      const near = this.waiting.filter((other) => Math.abs(other.spike - word.spike) <= this.settle);
      if (near.some((other) => now - other.grown < this.settle) || this.hesitating(word, now)) continue;
      this.waiting.splice(this.waiting.indexOf(word), 1);
      const apart = (unit) => (unit === word.unit ? this.told.refractory_s / this.frameS : this.settle);
      const taken = [...this.heard].some(([unit, spike]) => Math.abs(word.spike - spike) < apart(unit));
      if (this.confidence(word) < this.told.threshold || taken) continue;
      this.heard.set(word.unit, word.spike);
      found.push(this.event(word));
    }
    return found;
  }

  // Whether someone may still talk on, who then meant no command. A sure word is meant, and those before it.
  hesitating(word, now) {
    const sure = this.waiting.filter((other) => this.confidence(other) >= this.told.sure);
    return now - word.spike < this.hesitation && !sure.some((other) => other.spike >= word.spike);
  }

  confidence(word) {
    const p = Math.min(Math.max(Math.min(word.probability, 1) * word.alone, 1e-6), 1 - 1e-6);
    return 1 / (1 + Math.exp(-this.told.confidence_slope * Math.log(p / (1 - p)) - this.told.confidence_bias));
  }

  event(word) {
    const name = this.units[word.unit];
    const spikeS = (word.spike + 0.5) * this.frameS - this.lookaheadS;
    const startS = Math.max(spikeS - (this.told.onset_s[name] ?? 0.3), 0);
    const endS = Math.max(spikeS - (this.told.offset_s[name] ?? 0), startS);
    return { startS, endS, confidence: this.confidence(word), name };
  }
}
