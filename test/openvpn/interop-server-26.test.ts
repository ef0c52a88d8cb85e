/** Our server with clients of OpenVPN 2.6. */
import { testMatrix } from './matrix.ts'

testMatrix('ours', '2.6')
