/** All scenarios in the order in which they run. */
import type { Stage } from '../stage.ts'
import { attributes, headers } from './attributes.ts'

export const scenarios: { readonly [name: string]: (stage: Stage) => Promise<void> } = {
  attributes,
  headers,
}
