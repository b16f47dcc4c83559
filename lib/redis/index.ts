export { redisBroker } from './broker.ts'
export type * from '../../types/redis.ts'
