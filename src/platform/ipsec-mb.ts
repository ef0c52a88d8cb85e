/**
 * Intel's Multi-Buffer Crypto for IPsec as an AEAD provider for AES-GCM, through bun:ffi: one call per packet, where
 * OpenSSL takes five. Optional: `openIpsecMb` says undefined where the library or the processor lacks something. Owns its key
 * schedules. Source: intel-ipsec-mb.h, "Direct GCM API".
 */

import { CString, dlopen, type Pointer } from 'bun:ffi'
import { readFileSync } from 'node:fs'
import type { Aead, AeadCipher, AeadProvider } from './libcrypto.ts'
import { type Block, createBlock, type NativeMemory } from './memory.ts'

const LIBRARY = 'libIPSec_MB.so.1'
const TAG_BYTES = 16
/** `gcm_key_data` and `gcm_context_data` want this alignment, for the widest registers. */
const ALIGN = 64
/** More than any version's `gcm_key_data`; what is really used is measured. */
const KEY_DATA_MAX = 8192
const CONTEXT_BYTES = 512

/** Which of the library's builds a processor can run, the best first. */
const builds: readonly { suffix: string; needs: readonly string[] }[] = [
  { suffix: 'vaes_avx512', needs: ['avx512f', 'avx512bw', 'avx512vl', 'vaes', 'vpclmulqdq'] },
  { suffix: 'avx_gen4', needs: ['avx2', 'aes', 'pclmulqdq'] },
  { suffix: 'sse', needs: ['sse4_1', 'aes', 'pclmulqdq'] },
]

const keyBits: { readonly [C in AeadCipher]?: 128 | 192 | 256 } = {
  'aes-128-gcm': 128,
  'aes-192-gcm': 192,
  'aes-256-gcm': 256,
}

const prepare = { args: ['ptr', 'ptr'], returns: 'void' } as const
/** key data, context, out, in, length, IV, AAD, its length, tag, its length */
const crypt = {
  args: ['ptr', 'ptr', 'ptr', 'ptr', 'u64', 'ptr', 'ptr', 'u64', 'ptr', 'u64'],
  returns: 'void',
} as const

/** Opens the library for packets in `memory`; undefined when it is not installed, or not for this processor. */
export function openIpsecMb(
  memory: Pick<NativeMemory, 'base' | 'area' | 'u8' | 'view'>,
  library: string = LIBRARY,
): AeadProvider | undefined {
  if (process.arch !== 'x64') return undefined
  const flags = processorFlags()
  const build = builds.find(({ needs }) => needs.every((flag) => flags.has(flag)))
  if (build === undefined) return undefined
  const loaded = load(library, build.suffix)
  if (loaded === undefined) return undefined
  const scratch: Scratch = {
    ...{ base: memory.base, view: memory.view, context: aligned(CONTEXT_BYTES) },
    computed: memory.area(TAG_BYTES, 16),
  }

  return {
    name: 'ipsec-mb',
    version: loaded.version,
    create(cipher, key, direction): Aead {
      const bits = keyBits[cipher]
      if (bits === undefined) throw new Error(`${library} is not asked for ${cipher}`)
      if (key.length !== bits / 8) {
        throw new RangeError(`a key for ${cipher} has ${bits / 8} bytes, this one ${key.length}`)
      }
      const calls = loaded[bits]
      const schedule = aligned(calls.keyDataBytes)
      const secret = createBlock(key.length)
      secret.u8.set(key)
      calls.prepare(secret.base as Pointer, schedule.at)
      secret.u8.fill(0)
      return direction === 'seal'
        ? new Sealer(calls.seal, schedule, scratch)
        : new Opener(calls.open, schedule, scratch)
    },
  }
}

/** What the keys of one memory share. */
interface Scratch {
  readonly base: number
  readonly view: DataView
  readonly context: Aligned
  /** Offset of the tag that a packet should have. */
  readonly computed: number
}

// Classes, with all that a packet needs in one object: among many peers each further one is a cache miss.

class Sealer implements Aead {
  readonly #call: Crypt
  readonly #scratch: Scratch
  readonly #base: number
  readonly #context: Pointer
  readonly #schedule: Aligned
  #key: Pointer | undefined

  constructor(call: Crypt, schedule: Aligned, scratch: Scratch) {
    this.#call = call
    this.#scratch = scratch
    this.#base = scratch.base
    this.#context = scratch.context.at
    this.#schedule = schedule
    this.#key = schedule.at
  }

  seal(
    nonce: number,
    aad: number,
    aadLength: number,
    plain: number,
    length: number,
    out: number,
    tag: number,
  ): boolean {
    const key = this.#key
    if (key === undefined) return false
    const base = this.#base
    this.#call(
      key,
      this.#context,
      (base + out) as Pointer,
      (base + plain) as Pointer,
      length,
      (base + nonce) as Pointer,
      (base + aad) as Pointer,
      aadLength,
      (base + tag) as Pointer,
      TAG_BYTES,
    )
    return true
  }

  open(): boolean {
    return false
  }

  close(): void {
    this.#key = undefined
    forget(this.#schedule, this.#scratch)
  }
}

class Opener implements Aead {
  readonly #call: Crypt
  readonly #scratch: Scratch
  readonly #base: number
  readonly #context: Pointer
  readonly #computed: number
  readonly #schedule: Aligned
  #key: Pointer | undefined

  constructor(call: Crypt, schedule: Aligned, scratch: Scratch) {
    this.#call = call
    this.#scratch = scratch
    this.#base = scratch.base
    this.#context = scratch.context.at
    this.#computed = scratch.computed
    this.#schedule = schedule
    this.#key = schedule.at
  }

  seal(): boolean {
    return false
  }

  open(
    nonce: number,
    aad: number,
    aadLength: number,
    from: number,
    length: number,
    plain: number,
    tag: number,
  ): boolean {
    const key = this.#key
    if (key === undefined) return false
    const base = this.#base
    const computed = this.#computed
    this.#call(
      key,
      this.#context,
      (base + plain) as Pointer,
      (base + from) as Pointer,
      length,
      (base + nonce) as Pointer,
      (base + aad) as Pointer,
      aadLength,
      (base + computed) as Pointer,
      TAG_BYTES,
    )
    // All of the tag is looked at, however it differs: the time taken tells nothing about it.
    const { view } = this.#scratch
    let difference = 0
    for (let i = 0; i < TAG_BYTES; i += 4) {
      difference |= view.getInt32(computed + i) ^ view.getInt32(tag + i)
    }
    return difference === 0
  }

  close(): void {
    this.#key = undefined
    forget(this.#schedule, this.#scratch)
  }
}

/** Wipes the key's schedule, and what the last packet has left beside it. */
function forget(schedule: Aligned, { context }: Scratch): void {
  schedule.block.u8.fill(0)
  context.block.u8.fill(0)
}

function processorFlags(): Set<string> {
  try {
    const line = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))
    return new Set(line?.[1]?.trim().split(/\s+/))
  } catch {
    return new Set()
  }
}

function load(library: string, suffix: string) {
  try {
    const { symbols } = dlopen(library, {
      imb_get_version_str: { args: [], returns: 'ptr' },
    })
    const version = symbols.imb_get_version_str() as Pointer | null
    const calls = (bits: 128 | 192 | 256) => {
      const found = dlopen(library, {
        [`aes_gcm_pre_${bits}_${suffix}`]: prepare,
        [`aes_gcm_enc_${bits}_${suffix}`]: crypt,
        [`aes_gcm_dec_${bits}_${suffix}`]: crypt,
      }).symbols
      const prepareKey = found[`aes_gcm_pre_${bits}_${suffix}`] as Prepare
      return {
        prepare: prepareKey,
        seal: found[`aes_gcm_enc_${bits}_${suffix}`] as Crypt,
        open: found[`aes_gcm_dec_${bits}_${suffix}`] as Crypt,
        keyDataBytes: measureKeyData(prepareKey, bits / 8),
      }
    }
    return {
      version: version === null ? 'unknown' : new CString(version).toString(),
      128: calls(128),
      192: calls(192),
      256: calls(256),
    }
  } catch {
    return undefined
  }
}

type Prepare = (key: Pointer, keyData: Pointer) => void
type Crypt = (
  keyData: Pointer,
  context: Pointer,
  out: Pointer,
  from: Pointer,
  length: number,
  iv: Pointer,
  aad: Pointer,
  aadLength: number,
  tag: Pointer,
  tagLength: number,
) => void

/** How much of `gcm_key_data` this build writes; its size is not told by the library, and differs between versions. */
function measureKeyData(prepareKey: Prepare, keyBytes: number): number {
  const key = createBlock(keyBytes)
  let used = 0
  for (const filler of [0x00, 0xff]) {
    const data = aligned(KEY_DATA_MAX)
    data.block.u8.fill(filler)
    prepareKey(key.base as Pointer, data.at)
    const last = data.block.u8.findLastIndex((byte) => byte !== filler)
    used = Math.max(used, last + 1 - data.skipped)
  }
  return (used + ALIGN - 1) & -ALIGN
}

interface Aligned {
  readonly block: Block
  readonly at: Pointer
  /** Bytes of the block before it. */
  readonly skipped: number
}

function aligned(bytes: number): Aligned {
  const block = createBlock(bytes + ALIGN)
  const skipped = (ALIGN - (block.base % ALIGN)) % ALIGN
  return { block, at: (block.base + skipped) as Pointer, skipped }
}
