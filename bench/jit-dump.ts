/**
 * Owns reading JavaScriptCore's JIT dump, so that perf can name the code that the engine has made: perf itself knows such files by
 * another name than Bun gives them. Pure. Source: tools/perf/Documentation/jitdump-specification.txt in Linux.
 *
 *     header   | magic "JiTD" 4 | version 4 | total size 4 | ...
 *     record   | type 4 | total size 4 | timestamp 8 | body |
 *     type 0   | pid 4 | tid 4 | vma 8 | address 8 | size 8 | index 8 | name, NUL | code |       sizes in bytes, little-endian
 */

const MAGIC = 0x4a695444
const CODE_LOAD = 0
const RECORD_BYTES = 16

/** A piece of code; a later one takes the place of an earlier one at the same address. */
export interface JitCode {
  address: bigint
  bytes: bigint
  name: string
}

/** A last record that is cut off is left out. Throws an Error on what is no JIT dump. */
export function parseJitDump(dump: Uint8Array): JitCode[] {
  const view = new DataView(dump.buffer, dump.byteOffset, dump.byteLength)
  if (dump.length < 12 || view.getUint32(0, true) !== MAGIC) throw new Error('not a JIT dump')
  const found = new Map<bigint, JitCode>()
  let at = view.getUint32(8, true)
  while (at + RECORD_BYTES <= dump.length) {
    const end = at + view.getUint32(at + 4, true)
    if (end > dump.length || end < at + RECORD_BYTES) break
    if (view.getUint32(at, true) === CODE_LOAD) {
      const body = at + RECORD_BYTES
      const address = view.getBigUint64(body + 16, true)
      const text = dump.subarray(body + 40, end)
      const name = new TextDecoder().decode(text.subarray(0, text.indexOf(0)))
      found.set(address, { address, bytes: view.getBigUint64(body + 24, true), name })
    }
    at = end
  }
  return [...found.values()]
}

/** As perf wants it in /tmp/perf-PID.map. */
export function renderPerfMap(codes: JitCode[]): string {
  const lines = codes.map(({ address, bytes, name }) => {
    return `${address.toString(16)} ${bytes.toString(16)} ${name.replace(/\s+/g, ' ')}\n`
  })
  return lines.join('')
}
