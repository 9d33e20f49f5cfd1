/** The lab: a cluster of QEMU guests on this machine, for demonstration and tests. */

export { MANAGEMENT_SUBNET } from "./addresses.js";
export { CARD_BUS, CARD_TAG } from "./command.js";
export { type LabDownOptions, labDown } from "./down.js";
export { type LabSection, type OpenLab, openLab } from "./lab-cluster.js";
export { cacheRoot, labPaths, packageRoot } from "./paths.js";
export type { RunResult } from "./process.js";
export { type ExecOptions, labCopy, labExec, labExecInherited, sshArguments, vmAddress } from "./ssh.js";
export { type LabStatus, labStatus } from "./status.js";
export { initialCards, type LabUpOptions, type LabUpResult, labUp } from "./up.js";
