/** Our client with servers of OpenVPN 2.6. */
import { testMatrix } from './matrix.ts'

testMatrix('2.6', 'ours')
