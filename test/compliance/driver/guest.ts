/** A program of the suite in the virtual machine. */
import { againIfItDies } from '../../kernel/again.ts'
import { type GuestOptions, runProgramInKernel } from '../../kernel/vm.ts'

/**
 * Runs `file` as `runProgramInKernel` does, once more where the machine died on the way.
 *
 * @returns what it printed, a JSON value per line
 */
export async function playInKernel(
  file: string,
  args: readonly string[],
  options: GuestOptions,
): Promise<unknown[]> {
  const { transcript } = await againIfItDies(() => runProgramInKernel(file, args, options))
  return transcript
}
