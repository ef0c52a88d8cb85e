/** Our server with clients of OpenVPN 2.6. */
import { testServerWith } from './server-matrix.ts'

testServerWith('2.6')
