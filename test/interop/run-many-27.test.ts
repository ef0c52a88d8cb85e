/** Many clients of OpenVPN 2.7 under `ovpn run`. */
// npm test: ordinary user
import { testClientsOf } from './many.ts'

testClientsOf('2.7')
