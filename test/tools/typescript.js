// Lets a process import TypeScript: node --import ./test/tools/typescript.js test/rooms.test.ts
// The tests use it instead of tap's own plugin, which compiles every file anew in each of some two hundred processes.
import { register } from 'node:module'

register('./typescript-hooks.js', import.meta.url)
