/** The cluster file: its schema and types, and how it is read. */
export { defaultClusterPath, loadCluster, parseCluster } from "./cluster-load.js";
export {
  type Card,
  type Cluster,
  card,
  clusterFile,
  type Host,
  host,
  type Policy,
  policy,
  type Vm,
  vm,
} from "./cluster-schema.js";
