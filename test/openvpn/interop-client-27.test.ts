/** Our client with servers of OpenVPN 2.7. */
import { testMatrix } from './matrix.ts'

testMatrix('2.7', 'ours')
