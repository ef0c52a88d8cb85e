/** All scenarios in the order in which they run. */
import type { Stage } from '../stage.ts'
import { attributes, headers } from './attributes.ts'
import { ciphers, declared, floats, opcodes, receiving, replay, sending, single } from './data.ts'
import { keys } from './keys.ts'
import { closing, keepalive } from './life.ts'
import { links } from './links.ts'
import { peers, pointToPoint, sockets } from './peers.ts'
import { streams } from './streams.ts'

export const scenarios: { readonly [name: string]: (stage: Stage) => Promise<void> } = {
  attributes,
  headers,
  links,
  peers,
  'point-to-point': pointToPoint,
  sockets,
  keys,
  receiving,
  opcodes,
  replay,
  sending,
  declared,
  floats,
  single,
  ciphers,
  streams,
  keepalive,
  closing,
}
