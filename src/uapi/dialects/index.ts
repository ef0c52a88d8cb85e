/** The three wire dialects by the names of their families. */
import type { DialectName } from '../types.ts'
import type { Dialect } from './dialect.ts'
import { ovpn } from './ovpn.ts'
import { ovpnDco } from './ovpn-dco.ts'
import { ovpnDcoV2 } from './ovpn-dco-v2.ts'

export type { Dialect } from './dialect.ts'

export const dialects: { readonly [N in DialectName]: Dialect } = {
  'ovpn-dco': ovpnDco,
  'ovpn-dco-v2': ovpnDcoV2,
  ovpn,
}
