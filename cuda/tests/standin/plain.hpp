// Operators as kernels call them, whatever the calling thread is in the middle of.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace standin {

struct Plain {
  c10::impl::ForceDispatchKeyGuard none{
      c10::impl::LocalDispatchKeySet{c10::impl::PODLocalDispatchKeySet{}}};
  at::AutoDispatchBelowADInplaceOrView below;
};

}  // namespace standin
