/** Commands that OpenVPN's tools know, and whose subject is not here: smart cards, keys held elsewhere, Windows. */
import type { Command, Commands } from '../command.ts'

/** Each says so. */
export const ABSENT: Commands = {
  'pkcs11-id-count': {
    args: [0, 0],
    help: 'pkcs11-id-count: none, smart cards are not used',
    run: () => '>PKCS11ID-COUNT:0',
  },
  net: refusing('net', 'Sorry, this command is currently only implemented on Windows'),
  'rsa-sig': refusing('rsa-sig', 'The rsa-sig command is not currently available'),
  'pk-sig': refusing('pk-sig', 'The pk-sig command is not currently available'),
  certificate: refusing('certificate', 'The certificate command is not currently available'),
}

/** Known to OpenVPN's tools; what it is about cannot be here. */
function refusing(name: string, why: string): Command {
  return {
    args: [0, 0],
    help: `${name}: not available`,
    run() {
      throw new Error(why)
    },
  }
}
