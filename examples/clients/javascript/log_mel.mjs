// Samples in, in any portions; log-mel features out. The definition is in the README of every bundle.

const FFT = 512;
const mel = (hz) => 1127 * Math.log1p(hz / 700);

export class LogMel {
  constructor(told) {
    this.told = told;
    this.length = (told.sample_rate_hz * told.frame_length_ms) / 1000;
    this.shift = (told.sample_rate_hz * told.frame_shift_ms) / 1000;
    this.window = Float64Array.from({ length: this.length }, (_, i) =>
      Math.pow(0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (this.length - 1)), 0.85));
    this.cos = Float64Array.from({ length: FFT }, (_, i) => Math.cos((2 * Math.PI * i) / FFT));
    const [low, high] = [mel(told.low_hz), mel(told.high_hz)];
    const edge = (i) => low + ((high - low) * i) / (told.num_mels + 1);
    this.filters = Array.from({ length: told.num_mels }, (_, m) =>
      Float64Array.from({ length: FFT / 2 }, (_, bin) => {
        const at = mel((bin * told.sample_rate_hz) / FFT);
        const rising = (at - edge(m)) / (edge(m + 1) - edge(m));
        const falling = (edge(m + 2) - at) / (edge(m + 2) - edge(m + 1));
        return Math.max(Math.min(rising, falling), 0);
      }));
    this.left = [];
  }

  // samples: Int16Array -> arrays of num_mels numbers, of which 0 is silence
  accept(samples) {
    this.left.push(...samples);
    const frames = [];
    for (; this.left.length >= this.length; this.left.splice(0, this.shift)) frames.push(this.frame());
    return frames;
  }

  frame() {
    const mean = this.left.slice(0, this.length).reduce((a, b) => a + b) / this.length;
    const x = Float64Array.from(this.window, (weight, i) => {
      const [here, before] = [this.left[i] - mean, this.left[Math.max(i - 1, 0)] - mean];
      return weight * (here - 0.97 * before);
    });
    const power = Float64Array.from({ length: FFT / 2 }, (_, bin) => {
      let [real, imaginary] = [0, 0]; // a plain transform: an FFT is faster, and longer to read
      for (let i = 0; i < x.length; i++) {
        real += x[i] * this.cos[(bin * i) % FFT];
        imaginary += x[i] * this.cos[(bin * i + FFT / 4) % FFT];
      }
      return real * real + imaginary * imaginary;
    });
    return this.filters.map((weights) => {
      const sum = weights.reduce((total, weight, bin) => total + weight * power[bin], 0);
      return Math.max(Math.log(Math.max(sum, 1e-10)) - this.told.log_floor, 0) / this.told.log_scale;
    });
  }
}
