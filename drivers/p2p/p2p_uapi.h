/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * What user space sees of the two reference drivers.
 *
 * /dev/p2p_mem is the memory of a device. read() and write() reach it by the processor; P2P_MEM_EXPORT makes a part of it
 * a dma-buf. /dev/p2p_dma is an engine of another device, which has a small memory of its own. An open file of it holds at
 * most one dma-buf (P2P_DMA_ATTACH), and P2P_DMA_TRANSFER moves bytes between that and the engine's memory.
 *
 * Errors: EINVAL for sizes and offsets out of range and unknown flags, ENODEV once a device is gone, EBUSY for a second
 * attach, ENOTCONN for a transfer without one, ETIMEDOUT when the engine does not finish, EFAULT for bad pointers.
 */
#ifndef P2P_UAPI_H
#define P2P_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* How the engine reaches the memory. */
enum p2p_path {
	P2P_PATH_PEER = 1,	/* from device to device */
	P2P_PATH_BOUNCE = 2,	/* by way of pages of system memory: this kernel does not permit peer-to-peer here */
};

enum p2p_direction {
	P2P_TO_ENGINE = 0,
	P2P_FROM_ENGINE = 1,
};

struct p2p_mem_export {
	__u64 offset;		/* in: into the device's memory; a multiple of the page size */
	__u64 size;		/* in: the same; 0 is all that follows */
	__u32 flags;		/* in: must be 0 */
	__s32 fd;		/* out: the dma-buf */
};

struct p2p_dma_attach {
	__s32 fd;		/* in: a dma-buf */
	__u32 path;		/* out: enum p2p_path */
	__u64 size;		/* out: of the dma-buf */
};

struct p2p_dma_transfer {
	__u64 offset;		/* in: into the dma-buf */
	__u32 length;		/* in: bytes, at least 1 */
	__u32 engine_offset;	/* in: into the engine's memory of P2P_ENGINE_SIZE bytes */
	__u32 direction;	/* in: enum p2p_direction */
	__u32 path;		/* out: enum p2p_path */
	__u64 nanoseconds;	/* out: from the engine's start to its interrupt, all pieces together */
};

/* The device has twice that; some models of it stop the machine for a transfer that ends at their last byte. */
#define P2P_ENGINE_SIZE		2048

#define P2P_MEM_EXPORT		_IOWR('P', 0x50, struct p2p_mem_export)
#define P2P_DMA_ATTACH		_IOWR('P', 0x51, struct p2p_dma_attach)
#define P2P_DMA_TRANSFER	_IOWR('P', 0x52, struct p2p_dma_transfer)
#define P2P_DMA_DETACH		_IO('P', 0x53)

#endif
