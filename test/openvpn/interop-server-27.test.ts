/** Our server with clients of OpenVPN 2.7. */
import { testMatrix } from './matrix.ts'

testMatrix('ours', '2.7')
