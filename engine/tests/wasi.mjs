// Run a WASI program under node: `node wasi.mjs PROGRAM.wasm ARGUMENT... < input`.
import fs from "node:fs";
import { WASI } from "node:wasi";

const [program, ...args] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: ["program", ...args], preopens: { "/": "/" } });
const module = await WebAssembly.compile(fs.readFileSync(program));
process.exitCode = wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));
