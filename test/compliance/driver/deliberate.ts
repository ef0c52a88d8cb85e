/** Where the user-space driver answers otherwise than the kernel's, and means it. docs/API.md tells the same. */
import type { Deliberate } from './compare.ts'

export const deliberate: readonly Deliberate[] = []
