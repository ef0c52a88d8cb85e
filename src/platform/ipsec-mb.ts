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
  const { base, view } = memory
  const context = aligned(CONTEXT_BYTES)
  const contextAt = context.at
  const computed = memory.area(TAG_BYTES, 16)
  const computedAt = (base + computed) as Pointer

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
      const sealing = direction === 'seal'
      const schedule = aligned(calls.keyDataBytes)
      const secret = createBlock(key.length)
      secret.u8.set(key)
      calls.prepare(secret.base as Pointer, schedule.at)
      secret.u8.fill(0)
      const { seal, open } = calls
      let keyAt: Pointer | undefined = schedule.at
      return {
        seal(nonce, aad, aadLength, plain, length, out, tag) {
          if (keyAt === undefined || !sealing) return false
          seal(
            keyAt,
            contextAt,
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
        },
        open(nonce, aad, aadLength, from, length, plain, tag) {
          if (keyAt === undefined || sealing) return false
          open(
            keyAt,
            contextAt,
            (base + plain) as Pointer,
            (base + from) as Pointer,
            length,
            (base + nonce) as Pointer,
            (base + aad) as Pointer,
            aadLength,
            computedAt,
            TAG_BYTES,
          )
          // All of the tag is looked at, however it differs: the time taken tells nothing about it.
          let difference = 0
          for (let i = 0; i < TAG_BYTES; i += 4) {
            difference |= view.getInt32(computed + i) ^ view.getInt32(tag + i)
          }
          return difference === 0
        },
        close() {
          keyAt = undefined
          schedule.block.u8.fill(0)
          context.block.u8.fill(0)
        },
      }
    },
  }
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

function aligned(bytes: number): { block: Block; at: Pointer; skipped: number } {
  const block = createBlock(bytes + ALIGN)
  const skipped = (ALIGN - (block.base % ALIGN)) % ALIGN
  return { block, at: (block.base + skipped) as Pointer, skipped }
}
