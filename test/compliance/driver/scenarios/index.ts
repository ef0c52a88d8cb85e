/** All scenarios in the order in which they run. */
import type { Stage } from '../stage.ts'
import { attributes, headers } from './attributes.ts'
import { keys } from './keys.ts'
import { links } from './links.ts'
import { peers, pointToPoint, sockets } from './peers.ts'

export const scenarios: { readonly [name: string]: (stage: Stage) => Promise<void> } = {
  attributes,
  headers,
  links,
  peers,
  'point-to-point': pointToPoint,
  sockets,
  keys,
}
