/** Many clients of OpenVPN 2.6 under `ovpn run`. */
import { testClientsOf } from './many.ts'

testClientsOf('2.6')
