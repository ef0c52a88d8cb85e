/** A second try for what is done in a virtual machine, where the machine and not what it did has failed. */
import { GuestError } from './vm.ts'

/** Does it, and once more where the machine died on the way, as an emulated one now and then does of its emulator. */
export async function againIfItDies<T>(play: () => Promise<T>): Promise<T> {
  try {
    return await play()
  } catch (error) {
    if (!(error instanceof GuestError && error.code === 'GUEST_DIED')) throw error
    console.log(`the machine died, once more: ${error.message}`)
    return play()
  }
}
