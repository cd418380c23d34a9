// SPDX-License-Identifier: GPL-2.0-only
/*
 * Imports dma-bufs for the DMA engine of QEMU's edu device, which reads and writes bus addresses.
 *
 * It attaches as a dynamic importer that takes peers' addresses without pages. A mapping lives for one transfer, under the
 * buffer's reservation lock: where the exporter's device goes meanwhile, it waits for that lock, and the next transfer gets
 * its error. One lock (p2p_dma.lock) guards the engine and all open files; the order is p2p_dma.lock, then a buffer's.
 */
#include <linux/completion.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "p2p_uapi.h"

/* Registers of the device; docs/specs/edu.txt of QEMU. */
#define EDU_IRQ_STATUS	0x24
#define EDU_IRQ_ACK	0x64
#define EDU_DMA_SRC	0x80
#define EDU_DMA_DST	0x88
#define EDU_DMA_COUNT	0x90
#define EDU_DMA_CMD	0x98
#define EDU_CMD_START	BIT(0)
#define EDU_CMD_TO_RAM	BIT(1)
#define EDU_CMD_IRQ	BIT(2)
#define EDU_IRQ_DMA	0x100
/* Where the engine's own memory lies among its addresses. */
#define EDU_MEMORY	0x40000

/* The device takes a tenth of a second for any transfer; an emulated machine may be far slower than that. */
#define P2P_TIMEOUT	(20 * HZ)

struct p2p_dma {
	struct kref ref;	/* one for the device, and for each open file */
	struct pci_dev *pdev;
	struct miscdevice misc;
	void __iomem *regs;	/* valid while !gone */
	struct completion done;
	struct mutex lock;	/* guards all below, and the engine */
	struct list_head users;
	bool gone;
};

struct p2p_user {
	struct p2p_dma *dma;
	struct list_head node;
	struct dma_buf_attachment *attach;
};

static void p2p_dma_free(struct kref *ref)
{
	kfree(container_of(ref, struct p2p_dma, ref));
}

static void p2p_dma_put(struct p2p_dma *dma)
{
	kref_put(&dma->ref, p2p_dma_free);
}

static irqreturn_t p2p_dma_irq(int irq, void *data)
{
	struct p2p_dma *dma = data;
	u32 status = readl(dma->regs + EDU_IRQ_STATUS);

	if (!status)
		return IRQ_NONE;
	writel(status, dma->regs + EDU_IRQ_ACK);
	if (status & EDU_IRQ_DMA)
		complete(&dma->done);
	return IRQ_HANDLED;
}

/* One run of the engine between a bus address and its own memory. */
static int p2p_engine_run(struct p2p_dma *dma, dma_addr_t bus, u32 own, u32 length, bool to_engine)
{
	u64 engine = EDU_MEMORY + own;

	if (readq(dma->regs + EDU_DMA_CMD) & EDU_CMD_START)
		return -EIO;
	reinit_completion(&dma->done);
	writeq(to_engine ? bus : engine, dma->regs + EDU_DMA_SRC);
	writeq(to_engine ? engine : bus, dma->regs + EDU_DMA_DST);
	writeq(length, dma->regs + EDU_DMA_COUNT);
	writeq(EDU_CMD_START | EDU_CMD_IRQ | (to_engine ? 0 : EDU_CMD_TO_RAM), dma->regs + EDU_DMA_CMD);
	return wait_for_completion_timeout(&dma->done, P2P_TIMEOUT) ? 0 : -ETIMEDOUT;
}

/* The pieces of a mapping that a transfer covers, one run for each. */
static int p2p_run_pieces(struct p2p_dma *dma, struct sg_table *sgt, const struct p2p_dma_transfer *t)
{
	u64 skip = t->offset;
	u32 own = t->engine_offset, left = t->length;
	struct scatterlist *sg;
	int i, ret;

	for_each_sgtable_dma_sg(sgt, sg, i) {
		u32 length;

		if (skip >= sg_dma_len(sg)) {
			skip -= sg_dma_len(sg);
			continue;
		}
		length = min_t(u64, left, sg_dma_len(sg) - skip);
		ret = p2p_engine_run(dma, sg_dma_address(sg) + skip, own, length, t->direction == P2P_TO_ENGINE);
		if (ret)
			return ret;
		skip = 0;
		own += length;
		left -= length;
		if (!left)
			return 0;
	}
	return -EINVAL;
}

static int p2p_path(const struct dma_buf_attachment *attach)
{
	return attach->peer2peer ? P2P_PATH_PEER : P2P_PATH_BOUNCE;
}

static int p2p_run(struct p2p_user *user, struct p2p_dma_transfer *t)
{
	enum dma_data_direction dir = t->direction == P2P_TO_ENGINE ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
	struct dma_buf_attachment *attach = user->attach;
	struct sg_table *sgt;
	ktime_t start;
	int ret;

	if (!attach)
		return -ENOTCONN;
	if (t->offset >= attach->dmabuf->size || t->length > attach->dmabuf->size - t->offset)
		return -EINVAL;
	dma_resv_lock(attach->dmabuf->resv, NULL);
	sgt = dma_buf_map_attachment(attach, dir);
	if (IS_ERR(sgt)) {
		ret = PTR_ERR(sgt);
	} else {
		start = ktime_get();
		ret = p2p_run_pieces(user->dma, sgt, t);
		t->nanoseconds = ktime_to_ns(ktime_sub(ktime_get(), start));
		t->path = p2p_path(attach);
		dma_buf_unmap_attachment(attach, sgt, dir);
	}
	dma_resv_unlock(attach->dmabuf->resv);
	return ret;
}

static long p2p_dma_transfer(struct p2p_user *user, struct p2p_dma_transfer __user *arg)
{
	struct p2p_dma_transfer t;
	int ret;

	if (copy_from_user(&t, arg, sizeof(t)))
		return -EFAULT;
	if (!t.length || t.engine_offset >= P2P_ENGINE_SIZE || t.length > P2P_ENGINE_SIZE - t.engine_offset ||
	    t.direction > P2P_FROM_ENGINE)
		return -EINVAL;
	ret = mutex_lock_interruptible(&user->dma->lock);
	if (ret)
		return ret;
	ret = user->dma->gone ? -ENODEV : p2p_run(user, &t);
	mutex_unlock(&user->dma->lock);
	if (!ret && copy_to_user(arg, &t, sizeof(t)))
		ret = -EFAULT;
	return ret;
}

/*
 * Nothing to be done: no mapping outlives its transfer, and the lock that is held here is the transfer's, too.
 */
static void p2p_dma_invalidate(struct dma_buf_attachment *attach)
{
	dma_resv_assert_held(attach->dmabuf->resv);
}

static const struct dma_buf_attach_ops p2p_attach_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = p2p_dma_invalidate,
};

static void p2p_user_detach(struct p2p_user *user)
{
	struct dma_buf *dmabuf;

	lockdep_assert_held(&user->dma->lock);
	if (!user->attach)
		return;
	dmabuf = user->attach->dmabuf;
	dma_buf_detach(dmabuf, user->attach);
	dma_buf_put(dmabuf);
	user->attach = NULL;
}

static int p2p_user_attach(struct p2p_user *user, struct p2p_dma_attach *request)
{
	struct dma_buf_attachment *attach;
	struct dma_buf *dmabuf;

	if (user->dma->gone)
		return -ENODEV;
	if (user->attach)
		return -EBUSY;
	dmabuf = dma_buf_get(request->fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	attach = dma_buf_dynamic_attach(dmabuf, &user->dma->pdev->dev, &p2p_attach_ops, user);
	if (IS_ERR(attach)) {
		dma_buf_put(dmabuf);
		return PTR_ERR(attach);
	}
	user->attach = attach;
	request->path = p2p_path(attach);
	request->size = dmabuf->size;
	return 0;
}

static long p2p_dma_attach(struct p2p_user *user, struct p2p_dma_attach __user *arg)
{
	struct p2p_dma_attach request;
	int ret;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	mutex_lock(&user->dma->lock);
	ret = p2p_user_attach(user, &request);
	if (!ret && copy_to_user(arg, &request, sizeof(request))) {
		p2p_user_detach(user);
		ret = -EFAULT;
	}
	mutex_unlock(&user->dma->lock);
	return ret;
}

static long p2p_dma_detach(struct p2p_user *user)
{
	long ret;

	mutex_lock(&user->dma->lock);
	ret = user->attach ? 0 : -ENOTCONN;
	p2p_user_detach(user);
	mutex_unlock(&user->dma->lock);
	return ret;
}

static long p2p_dma_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct p2p_user *user = file->private_data;

	switch (command) {
	case P2P_DMA_ATTACH:
		return p2p_dma_attach(user, (void __user *)arg);
	case P2P_DMA_TRANSFER:
		return p2p_dma_transfer(user, (void __user *)arg);
	case P2P_DMA_DETACH:
		return p2p_dma_detach(user);
	default:
		return -ENOTTY;
	}
}

/* misc_open() holds misc_mtx, which misc_deregister() takes: the device is there. */
static int p2p_dma_open(struct inode *inode, struct file *file)
{
	struct p2p_dma *dma = container_of(file->private_data, struct p2p_dma, misc);
	struct p2p_user *user;

	user = kzalloc(sizeof(*user), GFP_KERNEL);
	if (!user)
		return -ENOMEM;
	kref_get(&dma->ref);
	user->dma = dma;
	mutex_lock(&dma->lock);
	list_add(&user->node, &dma->users);
	mutex_unlock(&dma->lock);
	file->private_data = user;
	return 0;
}

static int p2p_dma_release(struct inode *inode, struct file *file)
{
	struct p2p_user *user = file->private_data;
	struct p2p_dma *dma = user->dma;

	mutex_lock(&dma->lock);
	p2p_user_detach(user);
	list_del(&user->node);
	mutex_unlock(&dma->lock);
	kfree(user);
	p2p_dma_put(dma);
	return 0;
}

static const struct file_operations p2p_dma_fops = {
	.owner = THIS_MODULE,
	.open = p2p_dma_open,
	.release = p2p_dma_release,
	.unlocked_ioctl = p2p_dma_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static int p2p_dma_start(struct p2p_dma *dma)
{
	struct pci_dev *pdev = dma->pdev;
	int ret;

	dma->regs = pcim_iomap_region(pdev, 0, "p2p_dma");
	if (IS_ERR(dma->regs))
		return dev_err_probe(&pdev->dev, PTR_ERR(dma->regs), "no registers behind BAR 0\n");
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_ALL_TYPES);
	if (ret < 0)
		return ret;
	pci_set_master(pdev);
	ret = request_irq(pci_irq_vector(pdev, 0), p2p_dma_irq, IRQF_SHARED, "p2p_dma", dma);
	if (ret)
		goto vectors;
	ret = misc_register(&dma->misc);
	if (!ret)
		return 0;
	free_irq(pci_irq_vector(pdev, 0), dma);
vectors:
	pci_free_irq_vectors(pdev);
	return ret;
}

static int p2p_dma_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct p2p_dma *dma;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	dma = kzalloc(sizeof(*dma), GFP_KERNEL);
	if (!dma)
		return -ENOMEM;
	kref_init(&dma->ref);
	mutex_init(&dma->lock);
	init_completion(&dma->done);
	INIT_LIST_HEAD(&dma->users);
	dma->pdev = pdev;
	dma->misc.minor = MISC_DYNAMIC_MINOR;
	dma->misc.name = "p2p_dma";
	dma->misc.fops = &p2p_dma_fops;
	dma->misc.parent = &pdev->dev;
	pci_set_drvdata(pdev, dma);
	ret = p2p_dma_start(dma);
	if (ret)
		p2p_dma_put(dma);
	return ret;
}

/* A transfer under way ends first; then no open file is attached any more, nor can it attach again. */
static void p2p_dma_remove(struct pci_dev *pdev)
{
	struct p2p_dma *dma = pci_get_drvdata(pdev);
	struct p2p_user *user;

	misc_deregister(&dma->misc);
	mutex_lock(&dma->lock);
	dma->gone = true;
	list_for_each_entry(user, &dma->users, node)
		p2p_user_detach(user);
	mutex_unlock(&dma->lock);
	free_irq(pci_irq_vector(pdev, 0), dma);
	pci_free_irq_vectors(pdev);
	p2p_dma_put(dma);
}

static const struct pci_device_id p2p_dma_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, p2p_dma_ids);

static struct pci_driver p2p_dma_driver = {
	.name = "p2p_dma",
	.id_table = p2p_dma_ids,
	.probe = p2p_dma_probe,
	.remove = p2p_dma_remove,
};
module_pci_driver(p2p_dma_driver);

MODULE_DESCRIPTION("dma-buf importer for a PCI device's DMA engine");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
