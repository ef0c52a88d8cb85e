/** A program of the suite in the virtual machine, given a second try where the machine and not the program fails. */
import { GuestError, type GuestOptions, runProgramInKernel } from '../../kernel/vm.ts'

/**
 * Runs `file` as `runProgramInKernel` does. An emulated machine now and then dies of its emulator: seen were a boot that
 * stood still, and a fault within an instruction that the kernel was patching meanwhile.
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
    if (!(error instanceof GuestError)) throw error
    console.log(`the machine failed, once more: ${error.message}`)
    return play()
  }
}
