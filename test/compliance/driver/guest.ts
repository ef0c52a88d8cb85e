/** A program of the suite in the virtual machine, given a second try where the machine and not the program fails. */
import { GuestError, type GuestOptions, runProgramInKernel } from '../../kernel/vm.ts'

/**
 * Runs `file` as `runProgramInKernel` does, once more where the machine died on the way, as an emulated one now and then
 * does of its emulator.
 *
 * @returns what it printed, a JSON value per line
 */
export async function playInKernel(
  file: string,
  args: readonly string[],
  options: GuestOptions,
): Promise<unknown[]> {
  const play = async () => (await runProgramInKernel(file, args, options)).transcript
  try {
    return await play()
  } catch (error) {
    if (!(error instanceof GuestError && error.code === 'GUEST_DIED')) throw error
    console.log(`the machine died, once more: ${error.message}`)
    return play()
  }
}
