/**
 * Which queue of a TUN device a packet goes to: a small eBPF program that looks its destination up in a map
 * (linux/if_tun.h, TUNSETSTEERINGEBPF). Destinations that are not in the map go to the first queue; the map forgets what
 * was not used for long. Needs CAP_BPF or CAP_SYS_ADMIN: `openSteering` says undefined without.
 */

import { openLibc } from './libc.ts'
import { blockOf, blockOfText, createBlock } from './memory.ts'
import type { Syscalls } from './syscalls.ts'

const SYS_BPF = process.arch === 'x64' ? 321 : 280
const BPF_MAP_CREATE = 0
const BPF_MAP_UPDATE_ELEM = 2
const BPF_PROG_LOAD = 5
const BPF_MAP_TYPE_LRU_HASH = 9
const BPF_PROG_TYPE_SOCKET_FILTER = 1
const TUNSETSTEERINGEBPF = 0x800454e0
const KEY_BYTES = 16
const MAP_ENTRIES = 65536
const ATTR_BYTES = 128

/** Offsets in `union bpf_attr`, by command. */
const MapCreate = { type: 0, keySize: 4, valueSize: 8, maxEntries: 12 } as const
const MapUpdate = { map: 0, key: 8, value: 16 } as const
const ProgLoad = { type: 0, count: 4, instructions: 8, license: 16 } as const

export interface Steering {
  /** For `steer`, in whatever thread. */
  readonly map: number
  /** Has the device of this queue choose queues by the map; -errno where the kernel does not know how. */
  attach(tunFd: number): number
  close(): void
}

/** Makes the map and the program; undefined where that is not permitted. */
export function openSteering(os: Syscalls = openLibc()): Steering | undefined {
  const map = bpf(os, BPF_MAP_CREATE, (attr) => {
    attr.setUint32(MapCreate.type, BPF_MAP_TYPE_LRU_HASH, true)
    attr.setUint32(MapCreate.keySize, KEY_BYTES, true)
    attr.setUint32(MapCreate.valueSize, 4, true)
    attr.setUint32(MapCreate.maxEntries, MAP_ENTRIES, true)
  })
  if (map < 0) return undefined
  const code = blockOf(program(map))
  const license = blockOfText('MIT')
  const loaded = bpf(os, BPF_PROG_LOAD, (attr) => {
    attr.setUint32(ProgLoad.type, BPF_PROG_TYPE_SOCKET_FILTER, true)
    attr.setUint32(ProgLoad.count, code.u8.length / 8, true)
    attr.setBigUint64(ProgLoad.instructions, BigInt(code.base), true)
    attr.setBigUint64(ProgLoad.license, BigInt(license.base), true)
  })
  if (loaded < 0) {
    os.close(map)
    return undefined
  }
  return {
    map,
    attach(tunFd) {
      const fd = createBlock(4)
      fd.view.setInt32(0, loaded, true)
      return os.ioctl(tunFd, TUNSETSTEERINGEBPF, fd.base)
    },
    close() {
      os.close(loaded)
      os.close(map)
    },
  }
}

/** Sends packets to the address (four words, IPv4 as its IPv4-mapped address) to this queue from now on; 0 or -errno. */
export function steer(
  map: number,
  address: ArrayLike<number>,
  queue: number,
  os: Syscalls = openLibc(),
): number {
  const key = createBlock(KEY_BYTES)
  const value = createBlock(4)
  for (let i = 0; i < 4; i++) key.view.setInt32(4 * i, address[i]!, true)
  value.view.setUint32(0, queue, true)
  return bpf(os, BPF_MAP_UPDATE_ELEM, (attr) => {
    attr.setUint32(MapUpdate.map, map, true)
    attr.setBigUint64(MapUpdate.key, BigInt(key.base), true)
    attr.setBigUint64(MapUpdate.value, BigInt(value.base), true)
  })
}

function bpf(os: Syscalls, command: number, fill: (attr: DataView) => void): number {
  const attr = createBlock(ATTR_BYTES)
  fill(attr.view)
  return os.syscall(SYS_BPF, command, attr.base, ATTR_BYTES, 0, 0, 0)
}

/**
 * The program: the destination as four words on the stack, a look-up, and the value found. A packet that is shorter than
 * what is loaded from it ends the program with 0, as LD_ABS does.
 */
function program(map: number): Uint8Array {
  const MOV = 0xbf
  const MOV_IMM = 0xb7
  const AND_IMM = 0x57
  const ADD_IMM = 0x07
  const LD_ABS_BYTE = 0x30
  const LD_ABS_WORD = 0x20
  const ST_WORD = 0x62
  const STX_WORD = 0x63
  const LDX_WORD = 0x61
  const LD_IMM64 = 0x18
  const JEQ_IMM = 0x15
  const JNE_IMM = 0x55
  const JA = 0x05
  const CALL = 0x85
  const EXIT = 0x95
  const stack = 10
  const MAP_FD = 1
  const LOOKUP = 1
  /** operation, destination register, source register, offset, immediate */
  const lines: [op: number, dst: number, src: number, offset: number, immediate: number][] = [
    [MOV, 6, 1, 0, 0], // LD_ABS finds the packet through r6
    [LD_ABS_BYTE, 0, 0, 0, 0],
    [AND_IMM, 0, 0, 0, 0xf0],
    [JEQ_IMM, 0, 0, 10, 0x40], // to IPv4
    [JNE_IMM, 0, 0, 22, 0x60], // to the end
    [LD_ABS_WORD, 0, 0, 0, 24],
    [STX_WORD, stack, 0, -16, 0],
    [LD_ABS_WORD, 0, 0, 0, 28],
    [STX_WORD, stack, 0, -12, 0],
    [LD_ABS_WORD, 0, 0, 0, 32],
    [STX_WORD, stack, 0, -8, 0],
    [LD_ABS_WORD, 0, 0, 0, 36],
    [STX_WORD, stack, 0, -4, 0],
    [JA, 0, 0, 5, 0], // to the look-up
    [ST_WORD, stack, 0, -16, 0], // IPv4
    [ST_WORD, stack, 0, -12, 0],
    [ST_WORD, stack, 0, -8, 0xffff],
    [LD_ABS_WORD, 0, 0, 0, 16],
    [STX_WORD, stack, 0, -4, 0],
    [LD_IMM64, 1, MAP_FD, 0, map], // the look-up
    [0, 0, 0, 0, 0],
    [MOV, 2, stack, 0, 0],
    [ADD_IMM, 2, 0, 0, -16],
    [CALL, 0, 0, 0, LOOKUP],
    [JEQ_IMM, 0, 0, 2, 0], // to the end
    [LDX_WORD, 0, 0, 0, 0],
    [EXIT, 0, 0, 0, 0],
    [MOV_IMM, 0, 0, 0, 0], // the end
    [EXIT, 0, 0, 0, 0],
  ]
  const bytes = new Uint8Array(8 * lines.length)
  const view = new DataView(bytes.buffer)
  lines.forEach(([op, dst, src, offset, immediate], i) => {
    view.setUint8(8 * i, op)
    view.setUint8(8 * i + 1, (src << 4) | dst)
    view.setInt16(8 * i + 2, offset, true)
    view.setInt32(8 * i + 4, immediate, true)
  })
  return bytes
}
