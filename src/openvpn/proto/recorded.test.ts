/** Sessions between a small peer and stock software, as recorded: what each end sent, taken by our own session in its place. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hex, type LiveSession, loadVectors } from '../../../test/vectors/load.ts'
import { isControlOpcode } from '../../wire/control.ts'
import { Opcode, opcodeOf } from '../../wire/opcode.ts'
import { sealWkc } from '../../wire/wkc.ts'
import { createWrap, type Role, type WrapSettings } from '../../wire/wrap.ts'
import { Session, type SessionSettings, type SessionSink } from './session.ts'
import type { TlsFactory } from './tls-engine.ts'

/** A key that is wrapped where the recording left the wrapped one out. */
const SERVER_KEY = new Uint8Array(128).fill(7)

function wrapOf(session: LiveSession, role: Role): WrapSettings {
  switch (session.wrap) {
    case 'none':
      return { kind: 'none' }
    case 'tls-auth': {
      const client = session.client_key_direction
      const direction = client === undefined || role === 'client' ? client : client === 1 ? 0 : 1
      return { kind: 'tls-auth', key: hex(session.static_key!), digest: session.digest!, direction }
    }
    case 'tls-crypt':
      return { kind: 'tls-crypt', key: hex(session.static_key!), role }
    case 'tls-crypt-v2': {
      const key = hex(session.tls_crypt_v2_client_key!)
      const wkc = sealWkc(SERVER_KEY, key, new Uint8Array(0))
      return role === 'client'
        ? { kind: 'tls-crypt-v2', key, role, wkc }
        : { kind: 'tls-crypt-v2', key, role }
    }
  }
}

/** Packets of the control channel that one end sent, with the wrapped key behind them where it belongs. */
function sentBy(session: LiveSession, role: Role): Uint8Array[] {
  return session.packets
    .filter(({ dir }) => dir === (role === 'client' ? 'c2s' : 's2c'))
    .map(({ packet }) => hex(packet))
    .filter((packet) => isControlOpcode(opcodeOf(packet[0]!)))
    .map((packet) => {
      const opcode = opcodeOf(packet[0]!)
      if (opcode !== Opcode.HardResetClientV3 && opcode !== Opcode.ControlWkcV1) return packet
      const wkc = session.wkc
        ? hex(session.wkc)
        : sealWkc(SERVER_KEY, hex(session.tls_crypt_v2_client_key!), new Uint8Array(0))
      return Buffer.from(packet).includes(Buffer.from(wkc))
        ? packet
        : Uint8Array.from([...packet, ...wkc])
    })
}

/** The TLS bytes that one end sent, message by message. */
function streamOf(session: LiveSession, role: Role): Map<number, Uint8Array> {
  const wrap = createWrap(wrapOf(session, role === 'client' ? 'server' : 'client'))
  const messages = new Map<number, Uint8Array>()
  for (const packet of sentBy(session, role)) {
    const { messageId, payload } = wrap.unwrap(packet) ?? assert.fail('cannot be unwrapped')
    if (messageId !== undefined && messageId > 0) messages.set(messageId, payload)
  }
  return messages
}

const other = (role: Role): Role => (role === 'client' ? 'server' : 'client')

for (const recorded of loadVectors('live-sessions').sessions) {
  describe(recorded.name, () => {
    for (const role of ['client', 'server'] as const) {
      it(`as the ${role}: takes every packet, and TLS gets it in order`, () => {
        const got: Uint8Array[] = []
        const sent: Uint8Array[] = []
        // TLS says what it said then, a message's worth at a time.
        const toSay = [...streamOf(recorded, role).values()]
        let say: (() => void) | undefined
        const tls: TlsFactory = (_role, { ciphertext }) => {
          say = () => {
            const bytes = toSay.shift()
            if (bytes !== undefined) ciphertext(bytes)
          }
          return {
            receive: (bytes) => got.push(Uint8Array.from(bytes)),
            write() {},
            exportKeyingMaterial: () => new Uint8Array(0),
            close() {},
          }
        }
        const ids = {
          client: hex(recorded.client_session_id),
          server: hex(recorded.server_session_id),
        }
        const common = {
          tls,
          random: () => ids[role].slice(),
          hello: () => ({ options: '', username: '', password: '', peerInfo: '' }),
          unixSeconds: () => 1_800_000_000,
          maxPacket: 1400,
          tlsTimeout: 2000,
          handWindow: 60_000,
          tranWindow: 3_600_000,
          renegotiate: { least: 0, most: 0 },
        }
        const wrap = wrapOf(recorded, role)
        const opening = { peerSessionId: ids.client, wrap, firstReplayId: 1 }
        const settings: SessionSettings =
          role === 'client' ? { ...common, role, wrap } : { ...common, role, opening }
        const sink: SessionSink = {
          send: (packet) => sent.push(packet),
          certificates() {},
          hello() {},
          ready() {},
          use() {},
          expired() {},
          message() {},
          failed: (error) => assert.fail(error),
          wake() {},
        }
        const session = new Session(settings, sink, 0)
        session.poll(0)
        const packets = sentBy(recorded, other(role))
        for (const packet of packets) {
          // Everything is said before the last packet, which acknowledges it.
          for (let i = 0; i < 4; i++) {
            say?.()
            session.poll(1)
          }
          session.receive(packet, 1)
        }
        assert.deepEqual([...session.drops], [])
        assert.deepEqual(got, [...streamOf(recorded, other(role)).values()])
        assert.deepEqual(Buffer.from(session.peerSessionId!), Buffer.from(ids[other(role)]))
        const reader = createWrap(wrapOf(recorded, other(role)))
        for (const packet of sent) assert.ok(reader.unwrap(packet), 'the other end reads ours')
      })
    }
  })
}
