/**
 * What the control thread and a worker say to each other. Descriptors are numbers of this process, so they pass as such;
 * who closes one is said where it is handed over.
 */
import type { EngineStats, PeerChange, PeerSnapshot } from '../core/engine.ts'
import type { KeyConfig } from '../core/key-slot.ts'
import type { EndpointConfig, PeerConfig, PeerHandle, SlotName, TransportId } from '../core/peer.ts'
import type { InboxSockets } from './inbox.ts'

/** What a worker is started with. */
export interface WorkerOptions {
  /** eventfd that is written after messages to the worker; the control thread closes it. */
  wake: number
  /** One 32-bit count, of the messages sent to the worker: how it sees them before it is woken. */
  asked: SharedArrayBuffer
  /** Queue of the device; the control thread closes it when the worker has ended. */
  device: number
  /** Its number among the device's workers. */
  worker: number
  inbox: InboxSockets
  /** Map of the steering program, if the device has one: what comes to the wrong queue is entered. */
  steering: number | undefined
  /** The device takes UDP trains. */
  glueUdp: boolean
  /** The kernel sends trains of datagrams. */
  trains: boolean
  /** Point-to-point mode. */
  single: boolean
  /** 32 random bits. */
  seed: number
  ifindex: number
}

/** Requests. */
export type Command =
  | {
      op: 'add-socket'
      transport: TransportId
      fd: number
      v6: boolean
      watch: CloseWatch | undefined
    }
  | { op: 'add-stream'; transport: TransportId; fd: number }
  | { op: 'remove-transport'; transport: TransportId }
  | { op: 'add-peer'; config: PeerConfig }
  | { op: 'change-peer'; handle: PeerHandle; change: PeerChange }
  | { op: 'move-peer'; handle: PeerHandle; remote: EndpointConfig; local: string }
  | { op: 'remove-peer'; handle: PeerHandle }
  | { op: 'install-key'; handle: PeerHandle; slot: SlotName; config: KeyConfig }
  | { op: 'swap-keys'; handle: PeerHandle }
  | { op: 'delete-key'; handle: PeerHandle; slot: SlotName }
  | { op: 'retire-key'; handle: PeerHandle; keyId: number }
  | { op: 'pull-epoch'; handle: PeerHandle; keyId: number; epoch: number }
  | { op: 'hear-key'; handle: PeerHandle; keyId: number }
  | { op: 'snapshot'; handle: PeerHandle }
  | { op: 'snapshots' }
  | { op: 'stats' }
  | { op: 'send-control'; handle: PeerHandle; packet: Uint8Array }
  | { op: 'send-inside'; handle: PeerHandle; message: Uint8Array }
  | { op: 'listen'; listens: boolean }
  | { op: 'stop' }

/** How a worker learns that the socket's owner has closed it. */
export interface CloseWatch {
  /** Descriptor that tells of closed sockets in the socket's namespace. */
  fd: number
  cookie: bigint
}

export interface Results {
  'add-socket': undefined
  'add-stream': undefined
  'remove-transport': undefined
  'add-peer': undefined
  'change-peer': boolean
  'move-peer': undefined
  'remove-peer': undefined
  'install-key': boolean
  'swap-keys': undefined
  'delete-key': undefined
  'retire-key': undefined
  'pull-epoch': undefined
  'hear-key': undefined
  snapshot: PeerSnapshot | undefined
  snapshots: PeerSnapshot[]
  stats: EngineStats & { provider: string }
  /** Errno, or 0. */
  'send-control': number
  /** False: there is no such peer, or it has no key. */
  'send-inside': boolean
  listen: undefined
  stop: undefined
}

/** A request with a number is answered by an `Answer` with it; one without is not, and must not fail. */
export interface Numbered {
  number: number | undefined
  command: Command
}

export type Answer = { number: number; value: unknown } | { number: number; error: string }

/** Told unasked, in the order in which things happened. */
export type Happening =
  | { what: 'expired'; handle: PeerHandle }
  /** Heard from `remote`, at our address `local`; `floated` unless only the latter is new. */
  | {
      what: 'moved'
      handle: PeerHandle
      remote: EndpointConfig
      local: string
      floated: boolean
      /** The other workers know already. */
      told: boolean
    }
  | { what: 'key-exhausted'; handle: PeerHandle; keyId: number }
  | { what: 'key-ageing'; handle: PeerHandle; keyId: number }
  /** For the worker that sends, when another one receives. */
  | { what: 'epoch-pulled'; handle: PeerHandle; keyId: number; epoch: number }
  /** For the same one. */
  | { what: 'key-heard'; handle: PeerHandle; keyId: number }
  | { what: 'transport-error'; handle: PeerHandle }
  | { what: 'socket-closed'; transport: TransportId }
  | { what: 'control'; handle: PeerHandle; packet: Uint8Array }
  | { what: 'inside'; handle: PeerHandle; message: Uint8Array }
  | { what: 'stream-ended'; handle: PeerHandle }
  /** The device was removed by somebody else, or its namespace has ended. */
  | { what: 'device-gone' }
  /** The worker cannot go on. */
  | { what: 'failed'; error: string }

export type FromWorker = Answer | Happening
