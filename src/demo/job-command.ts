/** The command that starts the demo's job inside the first VM. */
export interface JobPlacement {
  /** Names of the VMs, in the order of their ranks. */
  vms: readonly string[];
  ranksPerVm: number;
  /** Management network of the guests, for mpirun's own traffic and BTL/tcp. */
  network: string;
}

/**
 * `symvirt mpirun` over all VMs. The network is named because the fabric card comes and goes: mpirun
 * and BTL/tcp must never choose it.
 */
export function jobCommand(placement: JobPlacement, program: string, args: readonly string[]): string[] {
  const hosts = placement.vms.map((vm) => `${vm}:${placement.ranksPerVm}`).join(",");
  return [
    "symvirt",
    "mpirun",
    "--allow-run-as-root",
    ...["--host", hosts],
    ...["--mca", "oob_tcp_if_include", placement.network],
    ...["--mca", "btl_tcp_if_include", placement.network],
    // osc/rdma of Open MPI 4.1.4 waits for ever when its fragment buffer (32 KiB) runs full inside a
    // completion callback, with or without symvirt: give it room (docs/limits.md).
    ...["--mca", "osc_rdma_buffer_size", "16777216"],
    // Several ranks on a guest's one virtual CPU must let each other run while they wait.
    ...(placement.ranksPerVm > 1 ? ["--mca", "mpi_yield_when_idle", "1"] : []),
    ...["-np", String(placement.vms.length * placement.ranksPerVm)],
    program,
    ...args,
  ];
}
