/** Our server with clients of OpenVPN 2.7. */
import { testServerWith } from './server-matrix.ts'

testServerWith('2.7')
